//! Types and reads as a person in front of the machine: keys go down and up, and the screen has text.

use std::collections::BTreeSet;
use std::time::Duration;

use fs_err as fs;
use serde_json::json;

use super::Machine;
use super::qmp::COMMAND_TIMEOUT;
use crate::error::Result;

/// Between two keys. A PS/2 keyboard has room for 16 bytes, a BIOS for 16 keys, and an emulated guest reads slowly.
const PAUSE: Duration = Duration::from_millis(60);
/// Where the VGA text mode has its characters, each with a byte for its colours (IBM VGA, mode 3).
const TEXT: u64 = 0xb8000;
/// Columns and rows of that mode.
const SCREEN: (usize, usize) = (80, 25);

impl Machine {
    /// Lets these keys go down, or up, in this order; by QEMU's names.
    ///
    /// # Errors
    /// QEMU does not answer, or does not know a key.
    pub async fn keys(&self, keys: &[&str], down: bool) -> Result<()> {
        let event = |key: &&str| {
            let key = json!({"type": "qcode", "data": key});
            json!({"type": "key", "data": {"down": down, "key": key}})
        };
        let events: Vec<_> = keys.iter().map(event).collect();
        let sent = self.qmp.raw("input-send-event", json!({"events": events}), COMMAND_TIMEOUT);
        sent.await.map_err(|e| self.undone("cannot type into", &e))?;
        Ok(())
    }

    /// Presses these keys together and lets them go.
    ///
    /// # Errors
    /// As [`Machine::keys`].
    pub async fn tap(&self, keys: &[&str]) -> Result<()> {
        let reversed: Vec<&str> = keys.iter().rev().copied().collect();
        self.keys(keys, true).await?;
        tokio::time::sleep(PAUSE).await;
        self.keys(&reversed, false).await?;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// The lines of the VGA text screen without what ends them; none where the memory holds no text, as of a guest that
    /// draws pixels or a board without VGA.
    ///
    /// # Errors
    /// QEMU does not answer, or cannot write the machine's folder.
    pub async fn screen_text(&self) -> Result<Vec<String>> {
        let (columns, rows) = SCREEN;
        let file = self.files.dir().join("screen.text");
        let arguments = json!({
            "val": TEXT, "size": columns * rows * 2, "filename": file.to_string_lossy(),
        });
        let saved = self.qmp.raw("pmemsave", arguments, COMMAND_TIMEOUT).await;
        saved.map_err(|e| self.undone("cannot read the screen of", &e))?;
        let bytes = fs::read(&file)?;
        fs::remove_file(&file)?;
        Ok(lines(&bytes, columns))
    }

    /// The port on 127.0.0.1 where the screen is shown by VNC, if it is.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub async fn vnc_port(&self) -> Result<Option<u16>> {
        let answer = self.qmp.raw("query-vnc", json!({}), COMMAND_TIMEOUT).await;
        let answer = answer.map_err(|e| self.undone("cannot ask for the VNC port of", &e))?;
        Ok(answer.get("service").and_then(|port| port.as_str()?.parse().ok()))
    }

    /// Bytes that the guest has read from and written to the block node `node` since QEMU started.
    ///
    /// # Errors
    /// QEMU does not answer, or has no such node.
    pub async fn transferred(&self, node: &str) -> Result<(u64, u64)> {
        let answer =
            self.qmp.raw("query-blockstats", json!({"query-nodes": false}), COMMAND_TIMEOUT);
        let answer = answer.await.map_err(|e| self.undone("cannot ask for the disks of", &e))?;
        let all = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let stats = all.iter().find(|one| one["node-name"] == node).map(|one| &one["stats"]);
        let bytes = |key: &str| stats.and_then(|stats| stats[key].as_u64()).unwrap_or(0);
        Ok((bytes("rd_bytes"), bytes("wr_bytes")))
    }
}

/// More colours than a screen of text has. Other memory has nearly all values at these places.
const COLOURS: usize = 32;

/// Text memory as lines; what is no ASCII is a frame or a line, which nobody looks for.
fn lines(bytes: &[u8], columns: usize) -> Vec<String> {
    let colours: BTreeSet<u8> = bytes.iter().skip(1).step_by(2).copied().collect();
    if colours.len() > COLOURS {
        return vec![];
    }
    let row = |cells: &[u8]| {
        let text: String = cells
            .chunks(2)
            .map(|cell| match cell[0] {
                c @ 0x20..=0x7e => char::from(c),
                _ => ' ',
            })
            .collect();
        text.trim_end().to_owned()
    };
    bytes.chunks(columns * 2).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_memory_is_lines_without_colours() {
        let mut bytes = vec![];
        for c in b"boot: \xc4\xc4\0  " {
            bytes.extend([*c, 0x07]);
        }
        assert_eq!(lines(&bytes, 6), ["boot:", ""]);
        let code: Vec<u8> = (0..=255).flat_map(|n| [b'a', n]).collect();
        assert!(lines(&code, 80).is_empty(), "other memory is no text");
    }
}
