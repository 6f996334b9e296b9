//! Image layouts with one disk, and those that deceive.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::digest::FileDigest;
use crate::error::{Error, Kind};
use crate::image::container::{Container, Options, open};

/// A layout whose members a test can change before it is packed.
struct Layout {
    dir: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
}

impl Layout {
    /// One image with these layers.
    fn of(layers: &[Vec<u8>]) -> Self {
        let mut all = Layout { dir: tempfile::tempdir().expect("a folder"), files: vec![] };
        all.files.push(("oci-layout".into(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec()));
        let layers: Vec<_> = layers.iter().map(|layer| all.blob(layer)).collect();
        let config = all.blob(b"{}");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let manifest = all.blob(manifest.to_string().as_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        all.files.push(("index.json".into(), index.to_string().into_bytes()));
        all
    }

    fn blob(&mut self, bytes: &[u8]) -> Value {
        let digest = FileDigest::of(bytes);
        self.files.push((format!("blobs/sha256/{}", digest.hex()), bytes.to_vec()));
        json!({"mediaType": "x", "digest": digest, "size": bytes.len()})
    }

    /// The member of the place `number`, counted from 0.
    fn change(mut self, number: usize, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.files[number].1);
        self
    }

    fn open(&self) -> Result<Container, Error> {
        let path = self.dir.path().join("image.tar");
        std::fs::write(&path, archive(&self.files)).expect("written");
        open(&path, &Options::default())
    }

    fn refused(&self, word: &str) {
        let e = self.open().expect_err(word);
        assert_eq!(e.kind(), Kind::Undetermined, "{e}");
        assert!(e.to_string().contains(word), "`{word}` is not in: {e}");
    }
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, PathBuf::from(name), &bytes[..]).expect("appended");
    }
    tar.into_inner().expect("ended")
}

/// A disk with a boot sector's mark, and a layer with it.
fn layer() -> (Vec<u8>, Vec<u8>) {
    let mut disk = vec![7; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let layer = archive(&[("disk/disk.raw".into(), disk.clone())]);
    (disk, layer)
}

#[test]
fn the_disk_in_the_only_layer_is_read() {
    let (disk, layer) = layer();
    let image = Layout::of(&[layer]).open().expect("opens");
    let wrapping = image.wrapping.expect("wrapped");
    assert!(
        wrapping.starts_with("`disk/disk.raw` in a tar archive of `blobs/sha256/"),
        "{wrapping}"
    );
    assert!(wrapping.ends_with("in an OCI image"), "{wrapping}");
    let mut read = vec![0; disk.len()];
    image.reader.read_at(&mut read, 0).expect("reads");
    assert!(read == disk);
}

#[test]
fn what_is_not_one_image_with_one_true_layer_is_refused() {
    let (_, layer) = layer();
    Layout::of(&[]).refused("has 0 layers");
    Layout::of(&[layer.clone(), b"other".to_vec()]).refused("has 2 layers");
    let one = || Layout::of(std::slice::from_ref(&layer));
    // oci-layout, the layer, the config, the manifest, the index.
    one().change(1, |bytes| bytes[600_000] ^= 1).refused("has another digest");
    one().change(1, |bytes| bytes.push(0)).refused("is not as long as it should be");
    one().change(3, |bytes| bytes[2] ^= 1).refused("has another digest");
    let index = |text: &str| {
        let text = text.as_bytes().to_vec();
        one().change(4, move |bytes| *bytes = text)
    };
    index("{").refused("`index.json` cannot be read");
    index("{\"manifests\": []}").refused("it holds 0 images");
    index("{\"manifests\": [{\"digest\": \"sha512:ab\", \"size\": 1}]}").refused("not understood");
    index("{\"manifests\": [{\"digest\": \"sha256:../../index.json\", \"size\": 1}]}")
        .refused("is not there");
    one().change(4, |bytes| bytes.resize(5 << 20, b' ')).refused("the limit is");
    // A layer that is the whole image again ends, as all that is packed in itself does.
    let mut inner = layer.clone();
    for _ in 0..5 {
        inner = archive(&Layout::of(&[inner]).files);
    }
    Layout::of(&[inner]).refused("wrapped in more than");
}

/// As `docker save` writes it: a config, its layer, and `manifest.json`.
fn saved(layers: &[&str], diff_id: &str) -> Layout {
    let (_, layer) = layer();
    let config =
        json!({"architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let manifest = json!([{"Config": "c.json", "RepoTags": ["disk:1"], "Layers": layers}]);
    Layout {
        dir: tempfile::tempdir().expect("a folder"),
        files: vec![
            ("manifest.json".into(), manifest.to_string().into_bytes()),
            ("c.json".into(), config.to_string().into_bytes()),
            ("a/layer.tar".into(), layer),
        ],
    }
}

#[test]
fn what_docker_saves_is_read_and_its_layer_has_the_digest_of_its_config() {
    let (disk, layer) = layer();
    let digest = FileDigest::of(&layer).to_string();
    let opened = saved(&["a/layer.tar"], &digest).open().expect("opens");
    assert!(opened.wrapping.as_ref().is_some_and(|of| of.contains("docker archive")), "{opened:?}");
    assert_eq!(opened.reader.size(), disk.len() as u64);
    saved(&["a/layer.tar"], &FileDigest::of(b"x").to_string()).refused("has another digest");
    saved(&["a/layer.tar", "b"], &digest).refused("2 layers");
    saved(&["../layer.tar"], &digest).refused("is not there");
    let two = saved(&["a/layer.tar"], &digest).change(0, |text| {
        *text =
            b"[{\"Config\": \"c.json\", \"Layers\": []}, {\"Config\": \"c.json\", \"Layers\": []}]"
                .to_vec();
    });
    two.refused("2 images");
}
