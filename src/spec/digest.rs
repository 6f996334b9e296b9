//! `spec1`: what was asked for, as one digest. The rules: `docs/spec1.md`.

mod files;
mod iso;
mod steps;

use serde_json::{Value, json};

use crate::digest::{FileDigest, SpecDigest, StepDigest};
use crate::error::{Error, Result};
use crate::spec::types::{
    Checksum, ImageSource, InputFormat, IsoSource, Packages, Source, Spec, Step,
};

/// The digest of a spec with the contents of all files that it names.
///
/// `image` is the digest of the source image's file; it is needed where the spec names a checksum
/// file, since what that file says is not known before it is read.
///
/// # Errors
/// A file that the spec names cannot be read, or is no file, folder or link; `image` is missing or
/// contradicts the spec.
pub fn spec1(spec: &Spec, image: Option<&FileDigest>) -> Result<SpecDigest> {
    Ok(SpecDigest::of(&preimage(spec, image)?))
}

/// What [`spec1`] hashes.
///
/// # Errors
/// As [`spec1`].
pub fn preimage(spec: &Spec, image: Option<&FileDigest>) -> Result<Vec<u8>> {
    let steps: Vec<Value> = spec.steps.iter().map(inputs).collect::<Result<_>>()?;
    preimage_of(spec, image, &steps)
}

/// [`spec1`] where it is known what each step takes in ([`inputs`]).
///
/// # Errors
/// As [`spec1`].
pub fn spec1_of(spec: &Spec, image: Option<&FileDigest>, steps: &[Value]) -> Result<SpecDigest> {
    Ok(SpecDigest::of(&preimage_of(spec, image, steps)?))
}

fn preimage_of(spec: &Spec, image: Option<&FileDigest>, steps: &[Value]) -> Result<Vec<u8>> {
    let source = match &spec.source {
        Source::Packages(packages) => packages_source(packages),
        Source::Image(source) => image_source(source, image)?,
        Source::Iso(source) => iso::inputs(source, image)?,
        Source::Box(_) => box_source(image)?,
    };
    let mut document = json!({
        "arch": spec.arch.as_str(),
        "name": spec.name,
        "version": spec.version,
        "seal": { "hostname": spec.seal.hostname, "epoch": spec.seal.epoch },
        "source": source,
        "steps": steps,
    });
    // Sorted already, unless some crate in the tree turns the sorting off.
    document.sort_all_objects();
    Ok(format!("devbox/spec/1\n{document}").into_bytes())
}

/// The digest of all that one step takes in: its keys, and the contents of the files and folders of
/// the host that it reads. What the step starts from is no part of it.
///
/// # Errors
/// A file that the step names cannot be read, or is no file, folder or link.
pub fn step(step: &Step) -> Result<StepDigest> {
    Ok(StepDigest::of(format!("devbox/step/1\n{}", inputs(step)?).as_bytes()))
}

/// What [`step`] hashes, input by input, as it stands in [`preimage`].
///
/// # Errors
/// As [`step`].
pub fn inputs(step: &Step) -> Result<Value> {
    let mut inputs = steps::inputs(step)?;
    inputs.sort_all_objects();
    Ok(inputs)
}

fn sorted(list: &[String]) -> Vec<&str> {
    let mut list: Vec<&str> = list.iter().map(String::as_str).collect();
    list.sort_unstable();
    list
}

fn packages_source(p: &Packages) -> Value {
    json!({
        "type": "packages",
        "suite": p.suite,
        "packages": sorted(&p.packages),
        "components": sorted(&p.components),
        "mirror": p.mirror,
        "security_mirror": p.security_mirror,
        "disk": p.disk_size,
    })
}

/// All that an installation is made of, as it stands in [`preimage`]. `medium` is the digest of the medium's file.
///
/// # Errors
/// As [`spec1`].
pub fn installation(source: &IsoSource, medium: Option<&FileDigest>) -> Result<Value> {
    let mut inputs = iso::inputs(source, medium)?;
    inputs.sort_all_objects();
    Ok(inputs)
}

/// The digest of the source's file: what the spec states, if the file that was found has it too.
fn stated(checksum: &Checksum, file: Option<&FileDigest>) -> Result<String> {
    match (checksum, file) {
        (Checksum::Sha256(stated), Some(found)) if *stated != found.hex() => {
            Err(Error::failed("the source image is not the one that the spec names")
                .detail(format!("spec:  {stated}"))
                .detail(format!("image: {}", found.hex())))
        }
        (Checksum::Sha256(stated), _) => Ok(stated.clone()),
        (Checksum::File(_), Some(found)) => Ok(found.hex()),
        (Checksum::File(_), None) => {
            Err(Error::failed("the digest of the source image is not known yet")
                .hint("Fetch the image first: its checksum file says the digest."))
        }
    }
}

fn image_source(source: &ImageSource, image: Option<&FileDigest>) -> Result<Value> {
    let sha256 = stated(&source.checksum, image)?;
    let format = source.format.map(|f| match f {
        InputFormat::Raw => "raw",
        InputFormat::Qcow2 => "qcow2",
        InputFormat::Vhd => "vhd",
    });
    Ok(json!({ "type": "image", "sha256": sha256, "format": format }))
}

/// A box is known by its disk: where it lives and how it was chosen decides nothing about what comes out.
fn box_source(disk: Option<&FileDigest>) -> Result<Value> {
    let disk = disk.ok_or_else(|| {
        Error::failed("which box the source means is not known yet")
            .hint("Write it down with `devbox lock`.")
    })?;
    Ok(json!({ "type": "box", "sha256": disk.hex() }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The project of the vector, in a folder of its own so that it can be changed.
    fn project() -> tempfile::TempDir {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/spec1/project");
        let dir = tempfile::tempdir().expect("a folder");
        let status =
            std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(dir.path()).status();
        assert!(status.expect("cp runs").success());
        dir
    }

    fn of(dir: &Path) -> SpecDigest {
        let spec = crate::spec::load(Some(dir)).expect("valid");
        spec1(&spec, None).expect("digested")
    }

    #[test]
    fn the_vector_holds() {
        let dir = project();
        let spec = crate::spec::load(Some(dir.path())).expect("valid");
        let expected = include_bytes!("../../tests/vectors/spec1/project.preimage");
        let got = preimage(&spec, None).expect("digested");
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
        let digest = include_str!("../../tests/vectors/spec1/project.digest");
        assert_eq!(of(dir.path()).to_string(), digest.trim());
    }

    #[test]
    fn what_does_not_change_the_image_does_not_change_the_digest_and_the_rest_does() {
        let dir = project();
        let file = dir.path().join("devbox.toml");
        let text = std::fs::read_to_string(&file).expect("read");
        let before = of(dir.path());
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            std::fs::write(&file, text.replace(from, to)).expect("written");
            of(dir.path())
        };
        for (from, to) in [
            ("outputs = [\"raw\"]", "outputs = [\"raw\"]\nregistry = \"oci://r.example/web\""),
            ("outputs = [\"raw\"]", "outputs = [\"vhd\", \"qcow2\"]"),
            ("cpus = 1", "cpus = 7\nmemory = \"2GiB\"\nuser = \"ada\"\nfirmware = \"uefi\""),
            ("guest = 80", "guest = 81\nhost = 8080"),
            (
                "guest = 80",
                "guest = 80\n[machines.a]\ncpus = 3\n[machines.b]\ndepends_on = [\"a\"]\n",
            ),
            ("guest = 80", "guest = 80\n[network]\nsubnet = \"10.77.0.0/24\"\n"),
            ("guest = 80", "guest = 80\n[[provision]]\nname = \"a\"\ninline = \"true\"\n"),
            ("guest = 80", "guest = 80\n[[machine.disks]]\nname = \"a\"\nsize = \"1GiB\"\n"),
            ("guest = 80", "guest = 80\ncount = 2\n"),
            ("guest = 80", "guest = 80\n[[mounts]]\nsource = \".\"\ntarget = \"/work\"\n"),
            ("guest = 80", "guest = 80\n[[hooks]]\nwhen = \"before-up\"\ninline = \"true\"\n"),
            ("guest = 80", "guest = 80\n[trust]\nrequired = true\n"),
            ("name = \"a title is no input\"", ""),
            ("timeout = \"1m\"", "timeout = \"2m\""),
            ("[\"vim\", \"curl\"]", "[\"curl\", \"vim\"]"),
            ("https://mirror.example/debian/", "https://mirror.example/debian"),
        ] {
            assert_eq!(with(from, to), before, "{from}");
        }
        for (from, to) in [
            ("1.0.0-rc.1", "1.0.0"),
            ("\"curl\"", "\"curl\", \"git\""),
            ("3GiB", "4GiB"),
            ("A = ", "C = "),
            ("mode = \"0750\"", "mode = \"0751\""),
            ("/srv/site", "/srv/sites"),
            ("epoch = 1700000000", "epoch = 1700000001"),
        ] {
            assert_ne!(with(from, to), before, "{from}");
        }
        std::fs::write(&file, &text).expect("written");
        assert_eq!(of(dir.path()), before);
        std::fs::write(dir.path().join("site/img/back\\slash"), "y").expect("written");
        assert_ne!(of(dir.path()), before);
    }

    #[test]
    fn a_step_is_known_by_what_it_takes_in() {
        let dir = project();
        let of = || -> Vec<StepDigest> {
            let spec = crate::spec::load(Some(dir.path())).expect("valid");
            spec.steps.iter().map(|s| step(s).expect("digested")).collect()
        };
        let before = of();
        assert_eq!(before.len(), 4);
        // The digest of an entry of the vector's preimage, as any other program would compute it.
        let inputs = br#"{"env":{},"script":"sha256:b71a5886df504d489c60289ab32076e8b66c35a9272f5309142edc19443c8068","type":"shell"}"#;
        let expected = StepDigest::of(&[&b"devbox/step/1\n"[..], inputs].concat());
        assert_eq!(before[1], expected);
        std::fs::write(dir.path().join("site/index.html"), "other").expect("written");
        let after = of();
        assert_eq!(after[..3], before[..3]);
        assert_ne!(after[3], before[3]);
    }

    #[test]
    fn the_same_script_inline_or_in_a_file_is_the_same_input() {
        let dir = tempfile::tempdir().expect("a folder");
        let head = "name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"packages\"\nsuite = \"bookworm\"\n[[steps]]\ntype = \"shell\"\n";
        std::fs::write(dir.path().join("s"), "true\n").expect("written");
        let mut digests = vec![];
        for step in ["inline = \"true\\n\"", "script = \"s\""] {
            std::fs::write(dir.path().join("devbox.toml"), format!("{head}{step}\n"))
                .expect("written");
            digests.push(of(dir.path()));
        }
        assert_eq!(digests[0], digests[1]);
    }

    #[test]
    fn a_pipe_in_a_folder_is_refused_and_not_opened() {
        let dir = project();
        let pipe = dir.path().join("site/pipe");
        let status = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(status.expect("mkfifo runs").success());
        let spec = crate::spec::load(Some(dir.path())).expect("valid");
        let e = spec1(&spec, None).expect_err("refused");
        assert!(e.what().ends_with("/site/pipe` is no file, folder or link"), "{e}");
    }

    #[test]
    fn an_image_is_known_by_its_digest_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("disk"), "abc").expect("written");
        let digest = FileDigest::of(b"abc");
        let of = |source: &str, found: Option<&FileDigest>| {
            let text =
                format!("name = \"a\"\nversion = \"1.0.0\"\n[source]\ntype = \"image\"\n{source}");
            let spec = crate::spec::parse(&text, Path::new("f"), dir.path()).expect("valid");
            spec1(&spec, found)
        };
        let stated = format!("path = \"disk\"\nsha256 = \"{}\"", digest.hex());
        let a = of(&stated, None).expect("digested");
        let listed = "url = \"https://h/disk\"\nchecksums = \"https://h/SHA256SUMS\"";
        assert_eq!(of(listed, Some(&digest)).expect("digested"), a);
        assert!(of(listed, None).is_err());
        assert!(of(&stated, Some(&FileDigest::of(b"x"))).is_err());
    }
}
