//! GRUB's environment block, `grubenv` (GRUB manual, section "Environment block"): 1024 bytes, a
//! header line, `name=value` lines, filled up with `#`.

const HEADER: &[u8] = b"# GRUB Environment Block\n";

/// The variables in file order; nothing if it is no environment block.
pub(super) fn variables(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Some(body) = block.strip_prefix(HEADER) else { return vec![] };
    let (mut out, mut line, mut escaped) = (vec![], vec![], false);
    for &byte in body {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'\n' if !escaped => {
                take(&mut line, &mut out);
            }
            _ => {
                escaped = false;
                line.push(byte);
            }
        }
    }
    out
}

fn take(line: &mut Vec<u8>, out: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    let line = std::mem::take(line);
    if line.first() == Some(&b'#') {
        return;
    }
    if let Some(at) = line.iter().position(|&b| b == b'=') {
        out.push((line[..at].to_vec(), line[at + 1..].to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_end_where_the_filling_begins() {
        let mut block = HEADER.to_vec();
        block.extend_from_slice(b"saved_entry=a=b\\\\c\nkernelopts=root=x ro\n");
        block.resize(1024, b'#');
        let pair = |n: &[u8], v: &[u8]| (n.to_vec(), v.to_vec());
        assert_eq!(
            variables(&block),
            [pair(b"saved_entry", b"a=b\\c"), pair(b"kernelopts", b"root=x ro")]
        );
        assert!(variables(b"saved_entry=x\n").is_empty(), "no header, no block");
    }
}
