//! Why a machine drifted: what scripts change of a sealed system, each with the causes that have to be named on the
//! first screen, written down before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use devbox::image::container::qcow2::Layers;
use devbox::image::container::{Backing, Options};
use devbox::parity::drift::Drift;
use devbox::parity::drift::classes::{Class, Own, Verdict, classify, verdict};
use devbox::parity::explain::Explanation;
use devbox::parity::report::drift::Changed;
use devbox::parity::report::text::Shown;

use super::mounted::{self, Mounted, copy, run, text};
use super::numbers::Numbers;
use super::overlay;

const SIZE: u64 = 96 << 20;
/// Most lines between the verdict and what is no drift.
const CAUSES: usize = 13;

/// A change of the machine, and what has to be said of it.
struct Case {
    name: &'static str,
    /// A script of sh in the root folder; `$1` has the packages.
    script: &'static str,
    /// The ids of all groups.
    groups: &'static [&'static str],
    /// What is on the first screen.
    said: &'static [&'static str],
    /// What `--group` adds for one of them.
    evidence: &'static [&'static str],
}

/// Of a system of dpkg.
const DEBIAN: &[Case] = &[
    Case {
        name: "a package",
        script: "dpkg --root=\"$PWD\" -i \"$1\"/added.deb",
        groups: &["packages.changed"],
        said: &["~ packages         +added 1", "differences)"],
        evidence: &["/usr/share/added/200: added file  [added]"],
    },
    Case {
        name: "a newer package",
        script: "dpkg --root=\"$PWD\" -i \"$1\"/tools-2.deb",
        groups: &["packages.changed"],
        said: &["~ packages         tools 1 -> 2 ("],
        evidence: &["/usr/bin/find: content"],
    },
    Case {
        name: "a newer package, and a file of it that somebody changed then",
        script: "dpkg --root=\"$PWD\" -i \"$1\"/tools-2.deb; echo mine >> usr/bin/find",
        groups: &["packages.changed", "files.package-modified"],
        said: &["~ packages         tools 1 -> 2 (", "~ modified         /usr/bin/find: content"],
        evidence: &["as packaged on the first side, changed on the second"],
    },
    Case {
        name: "an edited file below /etc",
        script: "echo '# by hand' >> etc/tools.conf",
        groups: &["config.etc"],
        said: &["~ configuration    /etc/tools.conf: content, size"],
        evidence: &["+# by hand"],
    },
    Case {
        name: "a setuid bit",
        script: "chmod u+s usr/bin/find",
        groups: &["privilege.setuid"],
        said: &["! setuid           /usr/bin/find: mode 0755 -> 4755"],
        evidence: &["[tools]"],
    },
    Case {
        name: "a service",
        script: "ln -s /usr/lib/systemd/system/tools.service etc/systemd/system/multi-user.target.wants/",
        groups: &["services.enabled"],
        said: &["~ services         /etc/systemd/system/multi-user.target.wants/tools.service"],
        evidence: &[],
    },
    Case {
        name: "a user",
        script: "echo 'eve:x:0:0::/:/bin/sh' >> etc/passwd; \
                 echo 'eve:$6$planted$secrethashsecrethash:20000::::::' >> etc/shadow",
        groups: &["access.accounts"],
        said: &["! accounts         +user eve"],
        evidence: &["password set"],
    },
    Case {
        name: "all of it, and what does not count",
        script: "dpkg --root=\"$PWD\" -i \"$1\"/added.deb; echo '# by hand' >> etc/tools.conf; chmod u+s usr/bin/find; \
                 ln -s /usr/lib/systemd/system/tools.service etc/systemd/system/multi-user.target.wants/; \
                 echo 'dev ALL=(ALL) NOPASSWD: ALL' > etc/sudoers.d/dev; echo x > usr/local/bin/mine; \
                 mkdir home/dev; echo note > home/dev/note; echo host > etc/hostname",
        groups: &[
            "privilege.setuid",
            "access.sudo",
            "packages.changed",
            "services.enabled",
            "config.etc",
            "files.programs",
        ],
        said: &[
            "! setuid",
            "! sudo",
            "~ packages",
            "~ services",
            "~ configuration",
            "work: 2",
            "state: 2",
        ],
        evidence: &["+dev ALL=(ALL) NOPASSWD: ALL"],
    },
];

/// Of a system of rpm.
const FEDORA: &[Case] = &[
    Case {
        name: "a newer package of rpm",
        script: "rpm --root \"$PWD\" --dbpath /var/lib/rpm -U --nodeps --nosignature \"$1\"/tools-2.rpm",
        groups: &["packages.changed"],
        said: &["~ packages         tools 1-1 -> 2-1 ("],
        evidence: &["/usr/bin/find: content"],
    },
    Case {
        name: "a file of an unchanged package of rpm",
        script: "echo mine >> usr/bin/find",
        groups: &["files.package-modified"],
        said: &["~ modified         /usr/bin/find: content", "hint: Somebody edited"],
        evidence: &["as packaged on the first side, changed on the second"],
    },
];

/// Makes the packages in `$1`.
const PACKAGES: &str = r#"
cd "$1"
deb() {
    mkdir -p "$1-$2/DEBIAN"
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n' \
        "$1" "$2" > "$1-$2/DEBIAN/control"
    (cd "$1-$2" && find usr -type f -exec md5sum {} + > DEBIAN/md5sums)
    dpkg-deb --root-owner-group -b "$1-$2" "$3" > /dev/null
}
for version in 1 2; do
    mkdir -p tools-$version/usr/bin tools-$version/usr/lib/systemd/system tools-$version/etc tools-$version/DEBIAN
    printf '#!/bin/sh\n# version %s\n' $version > tools-$version/usr/bin/find
    chmod 755 tools-$version/usr/bin/find
    # Not of one size, either.
    seq $((version * 1000)) > tools-$version/usr/lib/systemd/system/tools.service
    echo setting > tools-$version/etc/tools.conf
    echo /etc/tools.conf > tools-$version/DEBIAN/conffiles
    deb tools $version tools-$version.deb
    printf '%s\n' 'Name: tools' "Version: $version" 'Release: 1' 'Summary: x' 'License: none' 'BuildArch: noarch' \
        '%description' x '%install' "cp -r $PWD/tools-$version/usr %{buildroot}/usr" \
        '%files' /usr/bin/find /usr/lib/systemd/system/tools.service > tools.spec
    rpmbuild -bb --quiet tools.spec --define "_topdir $PWD/top" --define "_rpmdir $PWD" \
        --define "_rpmfilename tools-$version.rpm"
done
mkdir -p added-1/usr/share/added
for i in $(seq 200); do echo "$i" > added-1/usr/share/added/$i; done
deb added 1 added.deb
"#;

/// What both systems have, in the root folder.
const SYSTEM: &str = r"
umask 022
mkdir -p etc/systemd/system/multi-user.target.wants etc/sudoers.d usr/bin usr/local/bin usr/sbin home root var/log tmp
echo ID=lab > etc/os-release
echo root:x:0:0:root:/root:/bin/sh > etc/passwd
echo root:x:0: > etc/group
echo 'root:*:20000::::::' > etc/shadow
chmod 640 etc/shadow
";
const OF_DPKG: &str = r#"
mkdir -p var/lib/dpkg/info var/lib/dpkg/updates var/lib/dpkg/triggers
touch var/lib/dpkg/status var/lib/dpkg/available
dpkg --root="$PWD" -i "$1"/tools-1.deb
"#;
const OF_RPM: &str = r#"
mkdir -p var/lib/rpm
rpm --root "$PWD" --dbpath /var/lib/rpm -U --nodeps --nosignature "$1"/tools-1.rpm
"#;

/// A sealed image with packages beside it.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(system: &str) -> Self {
        let desk = Desk { folder: tempfile::tempdir().expect("a folder") };
        let image = desk.path("sealed");
        std::fs::create_dir(desk.path("packages")).expect("it makes");
        run("sh", &["-ec", PACKAGES, "sh", text(&desk.path("packages"))]);
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(SIZE).expect("a sparse file");
        run("mke2fs", &["-q", "-F", "-t", "ext4", text(&image)]);
        desk.change(&image, &[SYSTEM, system].concat());
        let base = desk.path("base.qcow2");
        run("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", text(&image), text(&base)]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn change(&self, image: &Path, script: &str) {
        let mounted = Mounted::new("ext4", image, &self.path("m"), "discard", true);
        let script = format!("cd '{}'; {script}", text(&mounted.root));
        run("sh", &["-ec", &script, "sh", text(&self.path("packages"))]);
    }

    /// What a machine of the image says after the script: its screen and its causes, with those of `--group`.
    fn drift(&self, script: &str) -> (Vec<String>, Explanation, String) {
        let image = self.path("now");
        copy(&self.path("sealed"), &image);
        self.change(&image, script);
        let (base, layer) = (self.path("base.qcow2"), self.path("layer.qcow2"));
        overlay::write(&self.path("sealed"), &image, &base, &layer, &mut Numbers::new(1));
        let backing = Backing::Within(vec![self.folder.path().to_path_buf()]);
        let options = Options { backing, ..Options::default() };
        let layers = Layers::open(&layer, &options).expect("a layer");
        let drift = Drift::open(&base, &layers, &options).expect("both sides");
        let found = drift.find().expect("what differs");
        let own = Own { user: "dev".to_owned(), work: vec![] };
        let changes = classify(&drift, &found, &own).expect("classes");
        let why = found.explain(&drift, &changes).expect("causes");
        let number = changes.iter().filter(|one| one.class == Class::Drift).count();
        assert_eq!(verdict(&changes), Verdict::Drifted(number));
        assert_eq!(why.groups.iter().map(|group| group.count).sum::<usize>(), number);
        let changed = Changed { changes: &changes, why: &why };
        let ids: Vec<_> = why.groups.iter().map(|group| group.id.about().id.to_owned()).collect();
        let groups = Shown::parse(false, &ids, None).expect("groups");
        let listed = changed.lines("", &groups).join("\n");
        let each: Vec<_> = changed.each().collect();
        let json = serde_json::to_string(&each).expect("JSON");
        assert!(!listed.contains("secrethash") && !json.contains("secrethash"), "{listed}");
        // Every path is there, whoever changed it.
        let all = Shown { all: true, ..Shown::default() };
        let all = changed.lines("", &all);
        for one in &changes {
            let place = format!("  {}: ", one.path);
            assert!(all.iter().any(|line| line.starts_with(&place)), "{place} is not in {all:#?}");
        }
        (changed.lines("dev (stopped), against shop:1.0.0", &Shown::default()), why, listed)
    }
}

fn holds(desk: &Desk, cases: &[Case]) {
    for Case { name, script, groups, said, evidence } in cases {
        let (lines, why, listed) = desk.drift(script);
        let screen = lines.join("\n");
        let expected: BTreeSet<_> = groups.iter().copied().collect();
        let ids: BTreeSet<_> = why.groups.iter().map(|group| group.id.about().id).collect();
        assert_eq!(ids, expected, "{name}: {screen}\n{listed}");
        assert!(lines[0].starts_with("drifted("), "{name}: {screen}");
        for words in *said {
            assert!(screen.contains(words), "{name}: `{words}` is not in\n{screen}");
        }
        for words in *evidence {
            assert!(listed.contains(words), "{name}: `{words}` is not in\n{listed}");
        }
        let end =
            |line: &String| ["work:", "state:", "`--group"].iter().any(|w| line.starts_with(w));
        let causes = lines[1..].iter().take_while(|line| !end(line)).count();
        assert!(causes <= CAUSES, "{name}: {screen}");
        let fits = |line: &String| line.chars().count() <= 80;
        assert!(lines[1..=causes].iter().all(fits), "{name}: {screen}");
    }
}

#[test]
fn each_change_of_a_machine_is_put_down_to_its_cause_on_the_first_screen() {
    let test = "each_change_of_a_machine_is_put_down_to_its_cause_on_the_first_screen";
    let programs =
        ["mke2fs", "losetup", "cp", "qemu-img", "dpkg", "dpkg-deb", "rpm", "rpmbuild", "md5sum"];
    if !mounted::possible(test, "ext4", &programs) {
        return;
    }
    holds(&Desk::new(OF_DPKG), DEBIAN);
    holds(&Desk::new(OF_RPM), FEDORA);
}
