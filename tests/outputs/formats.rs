//! Each format, as those read it who it is for.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::desk::{ALL, Desk, names};
use crate::lab::{text, tool};

/// What stands beside the outputs of all formats.
const BESIDE: [&str; 3] = ["web-1.2.0.aws.json", "web-1.2.0.kubevirt.yaml", "web-1.2.0.xen.cfg"];

fn out(program: &str, args: &[&str]) -> String {
    String::from_utf8_lossy(&tool(program, args).stdout).into_owned()
}

/// Unpacks into a folder of its own.
fn unpacked(desk: &Desk, archive: &Path, name: &str) -> PathBuf {
    let dir = desk.path(name);
    std::fs::create_dir(&dir).expect("made");
    tool("tar", &["-xf", text(archive), "-C", text(&dir)]);
    dir
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON")
}

/// qemu-img's own comparison with the disk that the box was made of.
fn same_disk(desk: &Desk, image: &Path, driver: &str) {
    let args = ["compare", "-f", "raw", "-F", driver, text(&desk.disk), text(image)];
    let said = Command::new("qemu-img").args(args).output().expect("qemu-img runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.trim(), "Images are identical.", "{}", image.display());
}

#[test]
fn every_format_holds_the_box_and_is_written_the_same_twice() {
    let desk = Desk::new(&ALL, "");
    let built = desk.build("dist");
    let dist = desk.path("dist");
    let file = |suffix: &str| dist.join(format!("web-1.2.0{suffix}"));

    // What it says of itself is so.
    let outputs = built["outputs"].as_array().expect("a list");
    let formats: Vec<_> = outputs.iter().map(|o| o["format"].as_str().expect("text")).collect();
    assert_eq!(formats, ALL);
    for output in outputs {
        let path = Path::new(output["path"].as_str().expect("text"));
        let sum = out("sha256sum", &[text(&dist.parent().expect("a folder").join(path))]);
        let hex = sum.split(' ').next().expect("a digest");
        assert_eq!(output["sha256"], format!("sha256:{hex}"), "{}", path.display());
    }
    for name in BESIDE {
        assert!(dist.join(name).is_file(), "{name}");
    }

    // Twice the same, all of it, though minutes and folders differ.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    desk.build("again");
    tool("diff", &["-r", text(&dist), text(&desk.path("again"))]);
    std::fs::remove_dir_all(desk.path("again")).expect("removed");

    // Containers, by QEMU.
    for (suffix, driver) in [
        (".qcow2", "qcow2"),
        (".zstd.qcow2", "qcow2"),
        (".raw", "raw"),
        (".aws.raw", "raw"),
        (".xen.raw", "raw"),
        (".vmdk", "vmdk"),
        (".vhd", "vpc"),
        (".vhdx", "vhdx"),
    ] {
        if !["raw", "vpc"].contains(&driver) {
            tool("qemu-img", &["check", "-f", driver, text(&file(suffix))]);
        }
        same_disk(&desk, &file(suffix), driver);
    }
    let zstd = json_of(&file(".zstd.qcow2"));
    assert_eq!(zstd["format-specific"]["data"]["compression-type"], "zstd");
    let vmdk = json_of(&file(".vmdk"));
    assert_eq!(vmdk["format-specific"]["data"]["create-type"], "streamOptimized");
    let vhd = std::fs::metadata(file(".vhd")).expect("there").len();
    assert_eq!((vhd - 512) % (1 << 20), 0, "whole MiB and the footer, as Azure wants");

    ova(&desk, &file(".ova"));
    gce(&desk, &file(".gce.tar.gz"));
    vagrant(&desk, &file(".box"));
    containerdisk(&desk, &file(".containerdisk.tar"));

    let aws = json(&file(".aws.json"));
    assert_eq!(aws["DiskContainer"]["UserBucket"]["S3Key"], "web-1.2.0.aws.raw");
    let xen = std::fs::read_to_string(file(".xen.cfg")).expect("there");
    assert!(xen.contains("target=web-1.2.0.xen.raw") && xen.contains("memory = 1024\n"), "{xen}");
}

fn json_of(image: &Path) -> Value {
    serde_json::from_str(&out("qemu-img", &["info", "--output=json", text(image)])).expect("JSON")
}

fn ova(desk: &Desk, ova: &Path) {
    let listed = out("tar", &["--numeric-owner", "-tvf", text(ova)]);
    let names: Vec<_> = listed.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(names, ["web-1.2.0.ovf", "web-1.2.0.mf", "web-1.2.0-disk1.vmdk"]);
    assert!(listed.lines().all(|line| line.starts_with("-rw-r--r-- 0/0 ")), "{listed}");
    assert!(listed.lines().all(|line| line.contains(" 2023-11-14 22:13 ")), "{listed}");
    let dir = unpacked(desk, ova, "ova");
    // Its manifest, in the form that sha256sum checks.
    let manifest = std::fs::read_to_string(dir.join("web-1.2.0.mf")).expect("there");
    let lines = manifest.lines().map(|line| {
        let (name, hex) =
            line.strip_prefix("SHA256(").expect("SHA-256").split_once(")= ").expect("a digest");
        format!("{hex}  {name}\n")
    });
    let sums = dir.join("sums");
    std::fs::write(&sums, lines.collect::<String>()).expect("written");
    let check = format!("cd {} && sha256sum -c --strict sums", text(&dir));
    assert_eq!(tool("sh", &["-c", &check]).stdout.iter().filter(|b| **b == b'\n').count(), 2);
    tool("xmllint", &["--noout", text(&dir.join("web-1.2.0.ovf"))]);
    let ovf = std::fs::read_to_string(dir.join("web-1.2.0.ovf")).expect("there");
    let xml = roxmltree::Document::parse(&ovf).expect("XML");
    let find = |name: &str| xml.descendants().find(|node| node.has_tag_name(name)).expect("there");
    let ns = "http://schemas.dmtf.org/ovf/envelope/1";
    assert_eq!(find("File").attribute((ns, "href")), Some("web-1.2.0-disk1.vmdk"));
    let size = std::fs::metadata(dir.join("web-1.2.0-disk1.vmdk")).expect("there").len();
    assert_eq!(find("File").attribute((ns, "size")), Some(size.to_string().as_str()));
    assert_eq!(find("Disk").attribute((ns, "capacity")), Some((32 << 20).to_string().as_str()));
    same_disk(desk, &dir.join("web-1.2.0-disk1.vmdk"), "vmdk");
}

fn gce(desk: &Desk, gce: &Path) {
    // GNU tar's old form, and no name or time in gzip's header.
    let head = std::fs::read(gce).expect("read")[..10].to_vec();
    assert_eq!(head[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    let listed = out("tar", &["--numeric-owner", "-tvzf", text(gce)]);
    assert_eq!(listed.trim(), "-rw-r--r-- 0/0        33554432 2023-11-14 22:13 disk.raw");
    let script = format!("gzip -dc {} | head -c 263 | tail -c 6", text(gce));
    assert_eq!(tool("sh", &["-c", &script]).stdout, b"ustar ");
    let dir = unpacked(desk, gce, "gce");
    tool("cmp", &[text(&dir.join("disk.raw")), text(&desk.disk)]);
}

fn vagrant(desk: &Desk, archive: &Path) {
    let dir = unpacked(desk, archive, "vagrant");
    assert_eq!(names(&dir), ["Vagrantfile", "box.img", "metadata.json", "seed.img"]);
    let metadata = json(&dir.join("metadata.json"));
    assert_eq!(metadata["provider"], "libvirt");
    assert_eq!((&metadata["format"], &metadata["virtual_size"]), (&"qcow2".into(), &1.into()));
    same_disk(desk, &dir.join("box.img"), "qcow2");
    let seed = dir.join("seed.iso");
    tool(
        "qemu-img",
        &["convert", "-f", "qcow2", "-O", "raw", text(&dir.join("seed.img")), text(&seed)],
    );
    let told = out("isoinfo", &["-J", "-x", "/user-data", "-i", text(&seed)]);
    assert!(told.starts_with("#cloud-config\n"), "{told}");
    let told: Value =
        serde_json::from_str(told.trim_start_matches("#cloud-config\n")).expect("JSON");
    assert_eq!(told["users"][0]["name"], "vagrant");
    assert!(told.get("ssh_keys").is_none(), "each machine makes its own");
}

fn containerdisk(desk: &Desk, archive: &Path) {
    let seen = out("skopeo", &["inspect", &format!("oci-archive:{}:1.2.0", text(archive))]);
    let seen: Value = serde_json::from_str(&seen).expect("JSON");
    assert_eq!((&seen["Architecture"], &seen["Os"]), (&"amd64".into(), &"linux".into()));
    assert_eq!(seen["Created"], "2023-11-14T22:13:20Z");
    assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(1));
    // skopeo verifies every digest of what it copies, that of the unpacked layer too.
    let copied = desk.path("copied");
    let (from, to) = (format!("oci-archive:{}", text(archive)), format!("dir:{}", text(&copied)));
    tool("skopeo", &["--insecure-policy", "copy", &from, &to]);
    let layer = seen["Layers"][0].as_str().expect("a digest").trim_start_matches("sha256:");
    let listed = out("tar", &["--numeric-owner", "-tvzf", text(&copied.join(layer))]);
    let lines: Vec<_> = listed.lines().collect();
    assert!(
        lines[0].starts_with("drwxr-xr-x 107/107 ") && lines[0].ends_with(" disk/"),
        "{listed}"
    );
    assert!(lines[1].starts_with("-rw-r--r-- 107/107 "), "{listed}");
    assert!(lines[1].ends_with(" disk/disk.qcow2") && lines.len() == 2, "{listed}");
    let dir = desk.path("layer");
    std::fs::create_dir(&dir).expect("made");
    tool("tar", &["-xzf", text(&copied.join(layer)), "-C", text(&dir), "--no-same-owner"]);
    same_disk(desk, &dir.join("disk/disk.qcow2"), "qcow2");
    // devbox itself looks into it, as into the others.
    let (code, said) = desk.lab.devbox(&["parity", "--level", "disk", "a.raw", text(archive)]);
    assert_eq!(code, 0, "{said}");

    let yaml = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let manifest = archive.with_file_name("web-1.2.0.kubevirt.yaml");
    let machine = out("/usr/bin/python3", &["-c", yaml, text(&manifest)]);
    let machine: Value = serde_json::from_str(&machine).expect("JSON");
    assert_eq!(
        (&machine["kind"], &machine["apiVersion"]),
        (&"VirtualMachine".into(), &"kubevirt.io/v1".into())
    );
    let spec = &machine["spec"]["template"]["spec"];
    assert_eq!(spec["volumes"][0]["containerDisk"]["image"], "registry.example/web:1.2.0");
    let named = |list: &Value| -> Vec<String> {
        list.as_array().expect("a list").iter().map(|one| one["name"].to_string()).collect()
    };
    assert_eq!(named(&spec["volumes"]), named(&spec["domain"]["devices"]["disks"]));
}
