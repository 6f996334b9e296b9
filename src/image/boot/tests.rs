use std::collections::BTreeMap;

use super::*;

/// Files in memory.
#[derive(Default)]
struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl Memory {
    fn with(mut self, path: &str, text: &str) -> Self {
        self.0.insert(path.into(), text.into());
        self
    }
}

impl Files for Memory {
    fn read(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        match self.0.get(path) {
            Some(text) if text.len() as u64 > limit => Err(too_much("a file that is too long")),
            text => Ok(text.cloned()),
        }
    }

    fn size(&self, path: &[u8]) -> Result<Option<u64>> {
        Ok(self.0.get(path).map(|t| t.len() as u64))
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let dir = [path, b"/"].concat();
        Ok(self.0.keys().filter_map(|p| p.strip_prefix(&dir[..])).map(<[u8]>::to_vec).collect())
    }
}

/// The shape of what Debian's `grub-mkconfig` writes.
const DEBIAN: &str = r#"
### BEGIN /etc/grub.d/00_header ###
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="DEFAULT"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function load_video {
  insmod all_video
}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
   font="/usr/share/grub/unicode.pf2"
fi
if loadfont $font ; then set gfxmode=auto; fi
### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-simple-abcd' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root abcd
	echo	'Loading Linux 6.1.0-2-cloud-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-2-cloud-amd64 root=UUID=abcd ro  console=tty0 console=ttyS0,115200 quiet
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-6.1.0-2-cloud-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-abcd' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-2-cloud-amd64' --class os $menuentry_id_option 'gnulinux-2-advanced' {
		linux	/boot/vmlinuz-6.1.0-2-cloud-amd64 root=UUID=abcd ro
		initrd	/boot/initrd.img-6.1.0-2-cloud-amd64
	}
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-1-cloud-amd64' --class os $menuentry_id_option 'gnulinux-1-advanced' {
		linux	/boot/vmlinuz-6.1.0-1-cloud-amd64 root=UUID=abcd ro single
		initrd	/boot/initrd.img-6.1.0-1-cloud-amd64
	}
}
### BEGIN /etc/grub.d/30_uefi-firmware ###
if [ "$grub_platform" = "efi" ]; then
	menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
		fwsetup
	}
fi
"#;

fn debian(default: &str) -> Memory {
    Memory::default().with("/boot/grub/grub.cfg", &DEBIAN.replace("DEFAULT", default))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn default_cmdline(files: &Memory) -> String {
    let entries = entries(files).expect("readable");
    text(&default_entry(&entries).expect("a default").cmdline).to_owned()
}

#[test]
fn debians_menu_is_read_in_order_with_its_submenu() {
    let entries = entries(&debian("0")).expect("readable");
    let titles: Vec<_> = entries.iter().map(|e| text(&e.title)).collect();
    assert_eq!(
        titles,
        [
            "Debian GNU/Linux",
            "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-2-cloud-amd64",
            "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-1-cloud-amd64",
        ]
    );
    let first = default_entry(&entries).expect("a default");
    assert_eq!(text(&first.kernel), "/boot/vmlinuz-6.1.0-2-cloud-amd64");
    assert_eq!(first.initrd, [b"/boot/initrd.img-6.1.0-2-cloud-amd64".to_vec()]);
    assert_eq!(text(&first.cmdline), "root=UUID=abcd ro console=tty0 console=ttyS0,115200 quiet");
}

#[test]
fn the_default_is_a_number_a_path_a_title_or_an_id() {
    for (default, single) in [
        ("0", false),
        ("1>1", true),
        ("gnulinux-advanced-abcd>gnulinux-1-advanced", true),
        ("Advanced options for Debian GNU/Linux>1", true),
        ("1", false),
        ("7", false),
        ("no such entry", false),
        ("", false),
    ] {
        let cmdline = default_cmdline(&debian(default));
        assert_eq!(cmdline.ends_with("single"), single, "default={default}: {cmdline}");
    }
}

#[test]
fn the_saved_entry_comes_from_the_environment_block() {
    let mut block =
        b"# GRUB Environment Block\nsaved_entry=gnulinux-advanced-abcd>gnulinux-1-advanced\n"
            .to_vec();
    block.resize(1024, b'#');
    let files = debian("${saved_entry}").with("/boot/grub/grubenv", text(&block));
    assert!(default_cmdline(&files).ends_with("single"));
    let once = text(&block).replace("saved_entry", "next_entry");
    assert!(default_cmdline(&debian("0").with("/boot/grub/grubenv", &once)).ends_with("single"));
    assert!(!default_cmdline(&debian("${saved_entry}")).ends_with("single"));
}

#[test]
fn a_plain_static_menu_and_a_device_in_the_path_are_read() {
    let files = Memory::default().with(
        "/grub/grub.cfg",
        "set timeout=0\nset opts='a b'\nmenuentry \"Linux\" {\n linux ($root)/vmlinuz $opts \"c d\" e\\ f ; initrd /early.img \\\n /initrd.img }\n",
    );
    let entries = entries(&files).expect("readable");
    assert_eq!(text(&entries[0].kernel), "/vmlinuz");
    assert_eq!(text(&entries[0].cmdline), r#"a b "c d" "e f""#);
    assert_eq!(entries[0].initrd, [b"/early.img".to_vec(), b"/initrd.img".to_vec()]);
    assert!(entries[0].default);
}

#[test]
fn an_included_file_adds_entries() {
    let files = Memory::default()
        .with("/boot/grub/grub.cfg", "if [ -f ${config_directory}/custom.cfg ]; then\n source ${config_directory}/custom.cfg\nfi\n")
        .with("/boot/grub/custom.cfg", "menuentry x { linux /vmlinuz y }");
    assert_eq!(default_cmdline(&files), "y");
}

#[test]
fn boot_loader_specification_entries_take_their_options_from_the_environment() {
    let mut block =
        b"# GRUB Environment Block\nsaved_entry=m-5.9\nkernelopts=root=/dev/x ro \n".to_vec();
    block.resize(1024, b'#');
    let conf = |v: &str| {
        format!(
            "title Linux {v}\nversion {v}\nlinux /boot/vmlinuz-{v}\ninitrd /boot/initrd-{v} $tuned_initrd\noptions $kernelopts quiet\n"
        )
    };
    let files = Memory::default()
        .with("/boot/grub2/grub.cfg", "load_env\nset default=\"${saved_entry}\"\nblscfg\n")
        .with("/boot/grub2/grubenv", text(&block))
        .with("/boot/loader/entries/m-5.9.conf", &conf("5.9"))
        .with("/boot/loader/entries/m-5.10.conf", &conf("5.10"));
    let entries = entries(&files).expect("readable");
    assert_eq!(text(&entries[0].title), "Linux 5.10", "the newest first");
    let default = default_entry(&entries).expect("a default");
    assert_eq!(text(&default.kernel), "/boot/vmlinuz-5.9");
    assert_eq!(text(&default.cmdline), "root=/dev/x ro quiet");
    assert_eq!(default.initrd, [b"/boot/initrd-5.9".to_vec()]);
}

#[test]
fn entries_without_grub_are_found_and_loader_conf_chooses() {
    let conf = |v: &str| format!("version {v}\nlinux /vmlinuz-{v}\noptions a\noptions b={v}\n");
    let files = Memory::default()
        .with("/loader/entries/a.conf", &conf("1"))
        .with("/loader/entries/b.conf", &conf("2"));
    assert_eq!(default_cmdline(&files), "a b=2");
    assert_eq!(default_cmdline(&files.with("/loader/loader.conf", "default a.*\n")), "a b=2");
    let files = Memory::default()
        .with("/loader/entries/a-1.conf", &conf("1"))
        .with("/loader/entries/b-2.conf", &conf("2"))
        .with("/loader/loader.conf", "# x\ntimeout 3\ndefault a-*\n");
    assert_eq!(default_cmdline(&files), "a b=1");
}

#[test]
fn hostile_scripts_end_with_an_error_or_nothing() {
    let run = |script: &str| entries(&Memory::default().with("/boot/grub/grub.cfg", script));
    let refused = [
        "function f { f }\nf\n".to_owned(),
        "source /boot/grub/grub.cfg\n".to_owned(),
        "if ".repeat(5000),
        "{ ".repeat(5000),
        format!("set a=xxxxxxxxxxxxxxxx\n{}", "set a=$a$a\n".repeat(64)),
        "menuentry a { linux /b }\n".repeat(2000),
        (0..2000).map(|n| format!("set v{n}=x\n")).collect(),
        "x".repeat(2 << 20),
    ];
    for script in refused {
        let e = run(&script).expect_err("a limit");
        assert_eq!(e.kind(), crate::error::Kind::Undetermined, "{e}");
    }
    for script in ["} } fi done", "menuentry { linux", "'", "\"${", "$", "if [ a", "linux /x"] {
        assert_eq!(run(script).expect("total"), [], "{script}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(text in proptest::collection::vec(
        proptest::sample::select(b"menuentry submenu linux /x{}[]$\"'\\;\n #ifthenelsefi=a1>".to_vec()), 0..400)) {
        let mut files = Memory::default();
        files.0.insert(b"/boot/grub/grub.cfg".to_vec(), text.clone());
        files.0.insert(b"/loader/entries/x.conf".to_vec(), text);
        let _ = entries(&files);
    }
}
