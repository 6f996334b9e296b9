//! Disks of others, made by other tools, become boxes; and what is no disk, or a hostile one, leaves nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::boxes::{Home, bytes, run};
use crate::server::{Registry, Site};

/// A folder with files, and a disk with a small Linux system.
struct Case {
    home: Home,
    dir: PathBuf,
}

impl Case {
    fn new() -> Self {
        let home = Home::new();
        let dir = home.path().join("work");
        let root = dir.join("root");
        for folder in ["etc", "bin", "usr/lib"] {
            std::fs::create_dir_all(root.join(folder)).expect("folder");
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("file");
        std::fs::write(root.join("etc/os-release"), "ID=tiny\n").expect("file");
        // An ELF header of x86-64 is all that is looked at.
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(18, 0);
        program.extend([62, 0]);
        program.resize(4096, 1);
        std::fs::write(root.join("bin/sh"), program).expect("file");
        std::fs::write(root.join("usr/lib/data"), bytes(7, 3_000_000)).expect("file");
        let case = Case { home, dir };
        case.tool("truncate", &["-s", "40M", "disk.raw"]);
        case.shell("echo 'start=2048, type=83' | sfdisk -q disk.raw");
        case.tool(
            "mke2fs",
            &["-q", "-F", "-t", "ext4", "-d", "root", "-E", "offset=1048576", "disk.raw", "38M"],
        );
        case.tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "box.img"]);
        case
    }

    fn tool(&self, program: &str, args: &[&str]) -> String {
        run(&self.dir, program, args)
    }

    fn shell(&self, script: &str) -> String {
        self.tool("sh", &["-eu", "-c", script])
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.dir.join(name), text).expect("written");
    }

    fn devbox(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(["box", "import"])
            .args(args)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("DEVBOX_HOME", self.home.path())
            .output()
            .expect("runs")
    }

    /// Imports; what was said as JSON.
    fn import(&self, args: &[&str]) -> Value {
        let out = self.devbox(&[args, &["--json"]].concat());
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    }

    /// Refused with these words, and nothing is left.
    fn refused(&self, args: &[&str], code: i32, words: &[&str]) {
        let before = self.home.store.list().expect("lists").len();
        let out = self.devbox(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: `{word}` is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(self.home.store.list().expect("lists").len(), before, "{args:?}");
        self.home.is_clean();
    }
}

#[test]
fn the_same_disk_is_the_same_box_in_whatever_it_comes() {
    let case = Case::new();
    case.shell(
        "gzip -k -c disk.raw > disk.raw.gz
        xz -0 -k -c box.img > disk.qcow2.xz
        qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw disk.vmdk
        qemu-img convert -f raw -O vhdx disk.raw disk.vhdx
        qemu-img convert -f raw -O vpc -o subformat=dynamic,force_size=on disk.raw disk.vhd
        printf '{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": 1}' > metadata.json
        echo 'Vagrant.configure(\"2\") { }' > Vagrantfile
        tar -czf one.box ./metadata.json ./Vagrantfile ./box.img
        cp box.img box_0.img
        printf '{\"provider\": \"libvirt\", \"disks\": [{\"path\": \"box_0.img\"}]}' > metadata.json
        tar -cf two.box metadata.json box_0.img
        printf '{\"provider\": \"virtualbox\"}' > metadata.json
        echo '<Envelope/>' > box.ovf
        tar -czf virtualbox.box metadata.json box.ovf disk.vmdk
        cp box.ovf vm.ovf
        for name in vm.ovf disk.vmdk; do echo \"SHA256($name)= $(sha256sum < $name | cut -d' ' -f1)\"; done > vm.mf
        tar -cf vm.ova vm.ovf vm.mf disk.vmdk",
    );
    let mut found: Vec<Value> = vec![];
    for (number, file) in [
        "disk.raw",
        "box.img",
        "disk.raw.gz",
        "disk.qcow2.xz",
        "disk.vmdk",
        "disk.vhdx",
        "disk.vhd",
        "one.box",
        "two.box",
        "virtualbox.box",
        "vm.ova",
    ]
    .iter()
    .enumerate()
    {
        let mut config =
            case.import(&[file, "--name", &format!("tiny:1.0.{number}")])["config"].take();
        assert_eq!((&config["seal"], &config["arch"]), (&json!("none"), &json!("amd64")), "{file}");
        for of_file in ["version", "spec1"] {
            config[of_file] = Value::Null;
        }
        found.push(config);
    }
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:#?}");
    case.home.is_clean();
    let shown = Command::new(env!("CARGO_BIN_EXE_devbox"))
        .args(["box", "show", "tiny:1.0.0"])
        .env("DEVBOX_HOME", case.home.path())
        .output()
        .expect("runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("seal      none: imported"), "{shown}");
    // The name is taken.
    case.refused(&["box.img", "--name", "tiny:1.0.0"], 1, &["is in the store with"]);
}

#[test]
fn what_is_hostile_or_no_disk_is_one_clear_error() {
    let case = Case::new();
    let secret = case.dir.join("secret");
    case.write("secret", "root:x");
    case.shell(
        "printf '{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": 1}' > metadata.json
        tar -cf up.box --transform 's,secret,../../escaped,' -P secret metadata.json
        tar -cf absolute.box -P \"$PWD/secret\" metadata.json
        ln -s secret link.img; tar -cf link.box link.img metadata.json
        ln secret hard.img; tar -cf hard.box secret hard.img
        mkfifo pipe.img; tar -cf fifo.box pipe.img metadata.json
        tar -cf device.box /dev/null metadata.json 2> /dev/null
        tar -cf twice.box box.img; tar -rf twice.box box.img
        tar -czf whole.box metadata.json box.img; head -c 20000 whole.box > cut.box
        head -c 100000 box.img > cut.qcow2
        yes | head -c 1G | zstd -q -1 > bomb.raw.zst
        tar -cf two.box box.img disk.raw
        printf '{\"provider\": \"libvirt\", \"disks\": [{\"path\": \"box.img\"}, {\"path\": \"disk.raw\"}]}' > metadata.json
        tar -cf disks.box metadata.json box.img disk.raw
        qemu-img create -q -f qcow2 -F raw -b \"$PWD/secret\" backed.qcow2 1M
        cp box.img changed.img; printf 'x' | dd of=changed.img bs=1 seek=300000 conv=notrunc status=none
        echo '<Envelope/>' > vm.ovf; echo \"SHA256(box.img)= $(sha256sum < secret | cut -d' ' -f1)\" > vm.mf
        tar -cf wrong.ova vm.ovf vm.mf box.img
        head -c 100000 /dev/zero > zeros.raw; echo text > text.raw
        : > empty.raw",
    );
    let import = |file: &str, words: &[&str]| {
        let out = case.devbox(&[file, "--name", "x:1.0.0"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(matches!(out.status.code(), Some(1..=3)), "{file}: {said}");
        for word in words {
            assert!(said.contains(word), "{file}: `{word}` is not in: {said}");
        }
        assert!(case.home.store.list().expect("lists").is_empty(), "{file}");
        case.home.is_clean();
        eprintln!("{file}: {}", said.lines().last().unwrap_or_default());
    };
    for file in ["up.box", "absolute.box"] {
        import(file, &["leads out of the archive"]);
    }
    import("link.box", &["holds a symbolic link", "`link.img` is one"]);
    import("fifo.box", &["holds a named pipe", "`pipe.img` is one"]);
    import("device.box", &["holds a device", "dev/null` is one"]);
    import(
        "hard.box",
        &["holds no disk image", "`hard.img` is a hard link, which is not followed"],
    );
    import("twice.box", &["two members `box.img`"]);
    for file in ["cut.box", "cut.qcow2"] {
        import(file, &["error: cannot import"]);
    }
    import("bomb.raw.zst", &["unpacks to more than", "--max-ratio"]);
    let limited = |file: &str, limit: &str, words: &[&str]| {
        case.refused(&[file, limit, "--name", "x:1.0.0"], 1, words);
    };
    // What the hints name is there.
    limited("bomb.raw.zst", "--max-ratio=1000000", &["no partition table and no filesystem"]);
    limited("box.img", "--max-disk-size=1MiB", &["--max-disk-size"]);
    import("two.box", &["holds 2 disks"]);
    import("disks.box", &["holds 2 disks"]);
    import("backed.qcow2", &["backing file"]);
    import("wrong.ova", &["does not agree with its manifest"]);
    for file in ["zeros.raw", "text.raw", "empty.raw", "secret", "/dev/null", "none"] {
        import(file, &["error:"]);
    }
    assert!(!case.home.path().join("escaped").exists() && !case.dir.join("../escaped").exists());
    assert_eq!(std::fs::read(&secret).expect("reads"), b"root:x", "as it was");
    let digest = "0".repeat(64);
    case.refused(
        &["box.img", "--name", "x:1.0.0", "--sha256", &digest],
        1,
        &["expected sha256:0000"],
    );
    case.refused(&["box.img"], 2, &["does not say which name"]);
    case.refused(
        &["box.img", "--name", "x:1.0.0", "--arch", "arm64"],
        1,
        &["programs on it are for amd64"],
    );
}

#[test]
fn a_catalog_names_the_box_and_its_digest_and_another_one_is_refused() {
    let case = Case::new();
    case.shell(
        "mkdir site; printf '{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": 1}' > metadata.json
        tar -czf site/a.box metadata.json box.img",
    );
    let sum = case.tool("sha256sum", &["site/a.box"])[..64].to_owned();
    let catalog = |name: &str, checksum: &str, kind: &str, url: &str| {
        let provider = json!({"name": "libvirt", "url": url, "checksum": checksum, "checksum_type": kind, "architecture": "amd64"});
        let text = json!({"name": "acme/Tiny_1", "versions": [
            {"version": "1.9.0", "providers": [provider]},
            {"version": "1.10.0", "providers": [provider]},
            {"version": "2.0.0", "providers": [{"name": "docker", "url": "x"}]}]});
        case.write(&format!("site/{name}.json"), text.to_string());
    };
    catalog("good", &sum, "sha256", "a.box");
    catalog("wrong", &"0".repeat(64), "sha256", "a.box");
    catalog("weak", "00", "md5", "a.box");
    catalog("file", &sum, "sha256", "file:///etc/passwd");
    case.write("site/junk.json", "{\"versions\": [{\"version\": 1}]}");
    let site = Site::start(&case.dir.join("site"));
    let at = |name: &str| format!("{}/{name}.json", site.url);
    let found = case.import(&[&at("good")]);
    assert_eq!(found["reference"], "tiny-1:1.10.0");
    assert_eq!(found["sha256"], format!("sha256:{sum}"));
    let older = case.import(&[&at("good"), "--box-version", "< 1.10", "--name", "old"]);
    assert_eq!(older["reference"], "old:1.9.0");
    // As a file it names what is beside it.
    let file = case.import(&["site/good.json", "--name", "local:1.0.0"]);
    assert_eq!(file["config"]["box1"], found["config"]["box1"]);
    case.refused(&[&at("wrong")], 1, &["expected sha256:0000", &sum]);
    case.refused(&[&at("weak")], 1, &["nothing says what the bytes", "--sha256"]);
    case.refused(&[&at("file")], 1, &["its scheme is `file`"]);
    case.refused(&[&at("junk")], 1, &["is no catalog of boxes"]);
    case.refused(
        &[&at("good"), "--box-version", "3"],
        1,
        &["no version in this range", "1.10.0 (libvirt for amd64)"],
    );
    case.refused(&[&format!("{}/a.box", site.url)], 1, &["nothing says what the bytes"]);
    let direct = format!("{}/a.box", site.url);
    case.import(&[&direct, "--sha256", &sum, "--name", "direct:1.0.0"]);
    // A place whose boxes have to be signed.
    std::fs::write(case.home.path().join("config.toml"), "[trust]\nrequired = true\n")
        .expect("settings");
    case.refused(&[&at("good"), "--name", "covered:1.0.0"], 4, &["have to be signed"]);
}

/// An OCI image layout in `dir`, with these blobs, and an index that names the last one.
fn layout(dir: &Path, blobs: &[&[u8]], index: &Value) {
    std::fs::create_dir_all(dir.join("blobs/sha256")).expect("folder");
    std::fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\": \"1.0.0\"}").expect("file");
    for blob in blobs {
        let name = devbox::digest::FileDigest::of(blob).hex();
        std::fs::write(dir.join("blobs/sha256").join(name), blob).expect("blob");
    }
    std::fs::write(dir.join("index.json"), index.to_string()).expect("index");
}

fn named(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": devbox::digest::FileDigest::of(blob), "size": blob.len()})
}

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn disks_of_kubevirt_and_podman_come_from_folders_archives_and_registries() {
    let case = Case::new();
    case.shell("mkdir disk; cp box.img disk/box.qcow2; tar -cf layer.tar --owner 107 --group 107 disk; gzip -n -k layer.tar; zstd -q box.img -o box.qcow2.zst");
    let read = |name: &str| std::fs::read(case.dir.join(name)).expect(name);
    let diff = case.tool("sha256sum", &["layer.tar"])[..64].to_owned();
    let layer = read("layer.tar.gz");
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]}}).to_string();
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE,
        "config": named("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [named("application/vnd.oci.image.layer.v1.tar+gzip", &layer)]})
    .to_string();
    let entry = |annotations: Value| {
        let mut entry = named(IMAGE, manifest.as_bytes());
        entry["annotations"] = annotations;
        entry
    };
    let index = json!({"schemaVersion": 2, "manifests": [entry(json!({"org.opencontainers.image.ref.name": "1.0.0"}))]});
    layout(&case.dir.join("cd"), &[&layer, config.as_bytes(), manifest.as_bytes()], &index);
    let by_folder = case.import(&["cd", "--name", "folder:1.0.0"]);
    let by_tag = case.import(&["dir:cd:1.0.0", "--name", "tag"]);
    assert_eq!(by_tag["reference"], "tag:1.0.0");
    case.tool("tar", &["-C", "cd", "-cf", "cd.tar", "."]);
    let by_archive = case.import(&["cd.tar", "--name", "archive:1.0.0"]);
    case.tool("skopeo", &["copy", "-q", "oci:cd:1.0.0", "docker-archive:saved.tar:tiny:1"]);
    let saved = case.import(&["saved.tar", "--name", "saved:1.0.0"]);
    for other in [&by_tag, &by_archive, &saved] {
        assert_eq!(other["config"]["bytes1"], by_folder["config"]["bytes1"]);
    }

    // podman: an index of disks, of which one is for QEMU and this architecture.
    let disk = read("box.qcow2.zst");
    let nothing = b"{}";
    let of = |what: &[u8], name: &str| {
        let mut layer = named("application/zstd", what);
        layer["annotations"] = json!({"org.opencontainers.image.title": name});
        json!({"schemaVersion": 2, "mediaType": IMAGE, "config": named("application/vnd.oci.empty.v1+json", nothing), "layers": [layer]}).to_string()
    };
    let (ours, other) =
        (of(&disk, "fcos.qemu.x86_64.qcow2.zst"), of(b"other", "fcos.hyperv.vhdx.zst"));
    let one = |text: &str, arch: &str, disktype: &str| {
        let mut entry = named(IMAGE, text.as_bytes());
        entry["platform"] = json!({"architecture": arch, "os": "linux"});
        entry["annotations"] = json!({"disktype": disktype});
        entry
    };
    let list = "application/vnd.oci.image.index.v1+json";
    let disks = json!({"schemaVersion": 2, "mediaType": list, "manifests": [
        one(&other, "x86_64", "hyperv"), one(&other, "aarch64", "qemu"), one(&ours, "x86_64", "qemu")]}).to_string();
    let top = json!({"schemaVersion": 2, "manifests": [named(list, disks.as_bytes())]});
    let blobs: [&[u8]; 6] =
        [&disk, b"other", nothing, ours.as_bytes(), other.as_bytes(), disks.as_bytes()];
    layout(&case.dir.join("machine"), &blobs, &top);
    let podman = case.import(&["machine", "--name", "podman:1.0.0", "--arch", "amd64"]);
    assert_eq!(podman["config"]["bytes1"], by_folder["config"]["bytes1"]);
    assert!(podman["from"].as_str().is_some_and(|from| from.contains("podman")), "{podman:#}");

    // Hostile layouts.
    let bad = |name: &str, manifest: &str, words: &[&str]| {
        let index = json!({"schemaVersion": 2, "manifests": [named(IMAGE, manifest.as_bytes())]});
        layout(&case.dir.join(name), &[&layer, config.as_bytes(), manifest.as_bytes()], &index);
        case.refused(&[name, "--name", "bad:1.0.0"], 1, words);
    };
    let hex = devbox::digest::FileDigest::of(&layer).to_string();
    bad("foreign", &manifest.replace(&hex, "sha512:00"), &["by `sha512`"]);
    bad("many", &json!({"layers": vec![named("x", b"x"); 17]}).to_string(), &["17 layers"]);
    bad(
        "twice",
        &manifest.replace("\"schemaVersion\"", "\"layers\": [], \"schemaVersion\""),
        &["twice"],
    );
    bad("other", "{\"schemaVersion\": 2}", &["neither a list nor"]);
    bad(
        "huge",
        &manifest.replace(&format!("\"size\":{}", layer.len()), "\"size\":9000000000000000000"),
        &["not enough free space"],
    );
    let mut flipped = layer.clone();
    flipped[500] ^= 1;
    std::fs::write(case.dir.join("cd/blobs/sha256").join(&hex[7..]), flipped).expect("damaged");
    std::fs::remove_dir_all(case.home.path().join("cache/downloads")).expect("forgotten");
    case.refused(&["cd", "--name", "bad:1.0.0"], 1, &["arrived with other bytes"]);
    std::fs::write(case.dir.join("cd/blobs/sha256").join(&hex[7..]), &layer).expect("restored");

    // Hostile disks in good layouts: archives of containerDisks, and what podman's machines have.
    let bad_layer = |name: &str, script: &str, words: &[&str]| {
        case.shell(&format!("rm -rf disk; mkdir disk; {script}"));
        let bytes = read("bad");
        let text = match name.starts_with("machine") {
            true => of(&bytes, "fcos.qemu.x86_64.qcow2.zst"),
            false => json!({"schemaVersion": 2, "mediaType": IMAGE,
                "config": named("application/vnd.oci.image.config.v1+json", config.as_bytes()),
                "layers": [named("application/vnd.oci.image.layer.v1.tar", &bytes)]})
            .to_string(),
        };
        let index = json!({"schemaVersion": 2, "manifests": [one(&text, "x86_64", "qemu")]});
        layout(
            &case.dir.join(name),
            &[&bytes, config.as_bytes(), nothing, text.as_bytes()],
            &index,
        );
        case.refused(&[name, "--name", "bad:1.0.0", "--arch", "amd64"], 1, words);
    };
    let out = "leads out of the archive";
    bad_layer("up", "tar -cf bad --transform 's,^box.img,disk/../../escaped,' box.img", &[out]);
    bad_layer(
        "link",
        "ln -s ../../secret disk/x.img; tar -cf bad disk",
        &["which is not followed"],
    );
    bad_layer(
        "device",
        "mknod disk/x.img c 1 5 || mkfifo disk/x.img; tar -cf bad disk",
        &["which is not followed"],
    );
    bad_layer("machine-bomb", "yes | head -c 1G | zstd -q -1 > bad", &["unpacks to more than"]);
    bad_layer("machine-cut", "head -c 50000 box.qcow2.zst > bad", &["cannot import"]);
    bad_layer("machine-link", "ln -s ../secret x.img; tar -cf bad x.img", &["symbolic link"]);

    // What cannot be imported is called by its address, and not by a file of the cache.
    let no_disk = [b'x'; 1024];
    let text = manifest.replace(&hex, &devbox::digest::FileDigest::of(&no_disk).to_string());
    let text = text.replace(&format!("\"size\":{}", layer.len()), "\"size\":1024");
    let index = json!({"schemaVersion": 2, "manifests": [named(IMAGE, text.as_bytes())]});
    layout(&case.dir.join("no-disk"), &[&no_disk, config.as_bytes(), text.as_bytes()], &index);
    case.refused(&["no-disk", "--name", "bad:1.0.0"], 1, &["cannot import `no-disk`"]);

    let Some(registry) = Registry::start("disks in registries") else { return };
    let to = |name: &str| format!("docker://127.0.0.1:{}/{name}", registry.port);
    let flags = ["copy", "-q", "--all", "--dest-tls-verify=false"];
    case.tool("skopeo", &[&flags[..], &["oci:cd:1.0.0", &to("team/tiny:1.0.0")]].concat());
    case.tool("skopeo", &[&flags[..], &["oci:machine", &to("machine:5.0")]].concat());
    let from_registry = case.import(&[&format!("{}:1.0.0", registry.repository("team/tiny"))]);
    assert_eq!(from_registry["reference"], "tiny:1.0.0");
    assert_eq!(from_registry["config"]["bytes1"], by_folder["config"]["bytes1"]);
    let machine =
        case.import(&[&format!("{}:5.0", registry.repository("machine")), "--arch", "amd64"]);
    assert_eq!(machine["reference"], "machine:5.0.0");
    case.refused(&[&registry.repository("none"), "--name", "x:1.0.0"], 1, &["there is nothing at"]);
    let image = case.home.store.find("tiny", "1.0.0").expect("reads").expect("there");
    assert_eq!(image.config().seal, devbox::store::UNSEALED);
}

#[test]
fn what_is_exported_stands_in_a_catalog_and_comes_back_as_the_same_disk() {
    let case = Case::new();
    let made = case.import(&["box.img", "--name", "tiny:1.2.0"]);
    std::fs::create_dir(case.dir.join("site")).expect("folder");
    let site = Site::start(&case.dir.join("site"));
    let export = |more: &[&str]| {
        let all =
            ["box", "export", "tiny:1.2.0", "--catalog", "site/tiny.json", "--url", &site.url];
        Command::new(env!("CARGO_BIN_EXE_devbox"))
            .args(all)
            .args(["--allow-unsandboxed", "--json"])
            .args(more)
            .current_dir(&case.dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", case.home.path())
            .env("DEVBOX_HOME", case.home.path())
            .output()
            .expect("runs")
    };
    let first = export(&[]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let catalog = std::fs::read(case.dir.join("site/tiny.json")).expect("written");
    let file = std::fs::read(case.dir.join("site/tiny-1.2.0-amd64.box")).expect("written");
    assert!(export(&[]).status.success(), "the same again");
    assert_eq!(std::fs::read(case.dir.join("site/tiny.json")).expect("written"), catalog);
    let names = std::fs::read_dir(case.dir.join("site")).expect("reads").count();
    assert_eq!(names, 2, "nothing else");
    let at = format!("{}/tiny.json", site.url);
    let back = case.import(&[&at, "--name", "back"]);
    assert_eq!(back["reference"], "back:1.2.0");
    assert_eq!(back["config"]["bytes1"], made["config"]["bytes1"]);
    // Another file for the same release, and the one that is published stays.
    let text = String::from_utf8(catalog).expect("text");
    let sum = text.split('"').find(|word| word.len() == 64).expect("a checksum").to_owned();
    case.write("site/tiny.json", text.replace(&sum, &"0".repeat(64)));
    case.write("site/tiny-1.2.0-amd64.box", "published");
    let refused = export(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("names another file"), "{said}");
    assert_eq!(
        std::fs::read(case.dir.join("site/tiny-1.2.0-amd64.box")).expect("there"),
        b"published"
    );
    assert!(export(&["--replace"]).status.success());
    assert!(std::fs::read(case.dir.join("site/tiny-1.2.0-amd64.box")).expect("there") == file);

    let Ok(vagrant) = which::which_in("vagrant", Some("/usr/local/bin:/usr/bin"), "/") else {
        eprintln!("not run: a catalog for Vagrant: `vagrant` is not installed");
        return;
    };
    let out = Command::new(vagrant)
        .args(["box", "add", &at, "--provider", "libvirt"])
        .env("VAGRANT_HOME", case.dir.join("vagrant"))
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
