//! The records of a manifest as JSON Lines. They are for programs that want to look at an image;
//! the text alone is read back.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::write::{volume_place, walk};
use super::{Held, Manifest};
use crate::digest::{DiskDigest, GroupDigest, hex};
use crate::error::{Context as _, Error, Result};
use crate::image::disk::Holder;
use crate::image::tree::{NodeId, NodeKind};
use crate::parity::bytes::CHUNK;
use crate::parity::canonical::{self, Leaf as Below, Subvolume};
use crate::parity::content::{self, Content};
use crate::parity::hashed::Hashed;
use crate::parity::spelling::spell;

/// Writes one object a line.
struct Records<'a>(&'a mut dyn Write);

impl Records<'_> {
    fn put(&mut self, record: &Value) -> Result<()> {
        let what = || "cannot write the manifest".to_owned();
        serde_json::to_writer(&mut *self.0, record)
            .map_err(|e| Error::failed(e.to_string()))
            .context(what)?;
        self.0.write_all(b"\n").context(what)
    }
}

impl Manifest {
    /// Writes the records as JSON Lines. The caller buffers and flushes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_json(&self, out: &mut dyn Write) -> Result<()> {
        let mut out = Records(out);
        out.put(&json!({"record": "manifest", "schema": "devbox.manifest/1"}))?;
        for note in &self.notes {
            out.put(&json!({"record": "note", "text": note}))?;
        }
        if let Some(chunks) = &self.bytes {
            let digest = chunks.digest();
            out.put(&json!({
                "record": "bytes", "digest": digest, "size": chunks.size, "chunk": CHUNK,
                "padded": chunks.padded.map(|sum| hex(&sum)),
            }))?;
            for (i, sum) in chunks.chunks.iter().enumerate() {
                let offset = i as u64 * CHUNK;
                out.put(&json!({"record": "chunk", "offset": offset, "sha256": hex(sum)}))?;
            }
        }
        match &self.held {
            Held::Tree(tree) => files(tree, None, &mut out)?,
            Held::System(content) => system(content, &mut out)?,
        }
        match &self.packages {
            Ok(packages) => {
                out.put(&json!({"record": "packages", "digest": packages.digest()}))?;
                for package in packages.list() {
                    out.put(&json!({
                        "record": "package",
                        "kind": package.kind,
                        "name": spell(&package.name),
                        "arch": spell(&package.arch),
                        "version": spell(&package.version),
                        "status": spell(&package.status),
                    }))?;
                }
            }
            Err(why) => out.put(&json!({"record": "packages", "digest": null, "without": why}))?,
        }
        out.put(&json!({"record": "end"}))
    }
}

fn system(content: &Content, out: &mut Records<'_>) -> Result<()> {
    let (system, disk) = (&content.system, &content.disk);
    out.put(&json!({
        "record": "box",
        "digest": content.digest(),
        "arch": system.arch,
        "firmware": system.firmware,
    }))?;
    for entry in &system.boot {
        out.put(&json!({
            "record": "boot",
            "title": spell(&entry.title),
            "kernel": spell(&entry.kernel),
            "commandLine": spell(&entry.command_line),
        }))?;
    }
    out.put(&json!({
        "record": "disk",
        "digest": DiskDigest::of(&canonical::disk(disk)),
        "table": disk.table,
        "id": disk.id,
        "boot440": disk.boot440,
        "gap": disk.gap,
    }))?;
    for part in &disk.partitions {
        out.put(&json!({
            "record": "part",
            "number": part.number,
            "type": part.type_id,
            "id": part.id,
            "name": spell(&part.name),
            "attributes": format!("{:016x}", part.attributes),
            "content": part.content.to_string(),
        }))?;
    }
    let mut groups = 0;
    for (part, held) in disk.partitions.iter().zip(&content.held) {
        match held {
            content::Held::Group(index) if *index == groups => {
                groups += 1;
                if let Some(group) = content.groups.get(*index) {
                    volumes(group, out)?;
                }
            }
            _ => filesystem(held, &Holder::Partition(part.number), out)?,
        }
    }
    Ok(())
}

fn volumes(group: &content::Volumes, out: &mut Records<'_>) -> Result<()> {
    let line = &group.line;
    out.put(&json!({
        "record": "group",
        "digest": GroupDigest::of(&canonical::group(line)),
        "name": spell(line.name.as_bytes()),
        "uuid": spell(line.uuid.as_bytes()),
        "physical": line.physical.iter().map(|uuid| spell(uuid.as_bytes())).collect::<Vec<_>>(),
    }))?;
    for volume in &line.volumes {
        out.put(&json!({
            "record": "volume",
            "group": spell(line.name.as_bytes()),
            "name": spell(volume.name.as_bytes()),
            "uuid": spell(volume.uuid.as_bytes()),
            "content": volume.content.to_string(),
        }))?;
    }
    for (volume, held) in line.volumes.iter().zip(&group.held) {
        let (group, volume) = (line.name.clone(), volume.name.clone());
        filesystem(held, &Holder::Volume { group, volume }, out)?;
    }
    Ok(())
}

fn filesystem(held: &content::Held, holder: &Holder, out: &mut Records<'_>) -> Result<()> {
    let content::Held::Filesystem { tree, boot } = held else { return Ok(()) };
    let mut fields = placed("fs", Some(holder));
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("digest", tree.fs1(*boot).to_string().into());
    put("type", tree.identity.kind.into());
    put("label", spell(&tree.identity.label).into());
    put("uuid", tree.identity.uuid.clone().into());
    put("boot", boot.to_string().into());
    put("root", Value::Object(metadata(tree, 0)));
    let all: Vec<_> = tree.subvolumes().iter().map(subvolume).collect();
    if !all.is_empty() {
        put("subvolumes", all.into());
    }
    out.put(&Value::Object(fields))?;
    files(tree, Some(holder), out)
}

fn subvolume(one: &Subvolume) -> Value {
    json!({"path": spell(&one.path), "read_only": one.read_only, "default": one.default})
}

/// A record of something in a filesystem; `partition` and `volume` say where that is, if it is
/// not the only one.
fn placed(record: &str, holder: Option<&Holder>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("record".to_owned(), record.into());
    let partition = match holder {
        Some(Holder::Partition(number)) => Some(*number),
        Some(Holder::Volume { group, volume }) => {
            fields.insert("volume".to_owned(), volume_place(group, volume).into());
            None
        }
        None => None,
    };
    fields.insert("partition".to_owned(), partition.into());
    fields
}

/// Mode, owner, attributes, flags.
fn metadata(tree: &Hashed, id: NodeId) -> Map<String, Value> {
    let node = tree.node(id);
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    if !matches!(node.kind, NodeKind::Symlink { .. }) {
        put("mode", format!("{:04o}", node.mode).into());
    }
    put("uid", node.uid.into());
    put("gid", node.gid.into());
    let xattrs = node.xattrs.iter().map(|(key, value)| (spell(key), hex(value).into()));
    put("xattrs", Value::Object(xattrs.collect()));
    put("flags", canonical::flags(node).into());
    fields
}

fn files(tree: &Hashed, holder: Option<&Holder>, out: &mut Records<'_>) -> Result<()> {
    let mut fields = placed("tree", holder);
    let mut put = |key: &str, value: String| fields.insert(key.to_owned(), value.into());
    put("tree1", tree.tree1().to_string());
    put("tree1t", tree.tree1t().to_string());
    put("links1", tree.links1().to_string());
    out.put(&Value::Object(fields))?;
    let mut done = Ok(());
    walk(tree, |id, path| {
        done = out.put(&entry(tree, holder, id, path));
        done.is_ok()
    });
    done?;
    for group in &tree.links {
        let paths: Vec<_> = group.iter().map(|path| spell(path)).collect();
        let mut fields = placed("links", holder);
        fields.insert("paths".to_owned(), paths.into());
        out.put(&Value::Object(fields))?;
    }
    Ok(())
}

fn entry(tree: &Hashed, holder: Option<&Holder>, id: NodeId, path: &[u8]) -> Value {
    let node = tree.node(id);
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    let record = match &node.kind {
        NodeKind::File { size, .. } => {
            put("size", (*size).into());
            "file"
        }
        NodeKind::Directory { .. } => "directory",
        NodeKind::Symlink { target } => {
            put("target", spell(target).into());
            "link"
        }
        NodeKind::CharDevice { major, minor } => {
            put("device", json!([major, minor]));
            "chardev"
        }
        NodeKind::BlockDevice { major, minor } => {
            put("device", json!([major, minor]));
            "blockdev"
        }
        NodeKind::Fifo => "pipe",
        NodeKind::Socket => "socket",
    };
    match tree.leaf(id) {
        Below::File(digest) => drop(put("digest", digest.to_string().into())),
        Below::Directory(digest) => drop(put("digest", digest.to_string().into())),
        Below::TimedDirectory(_) | Below::Nothing => {}
    }
    put("path", spell(path).into());
    put("mtime", node.mtime.into());
    fields.extend(placed(record, holder));
    fields.extend(metadata(tree, id));
    Value::Object(fields)
}
