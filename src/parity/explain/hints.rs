//! What to do about a group, as data: the first rule whose condition holds gives its hint.

use super::Of;
use super::cause::Cause;
use super::facts::Facts;

struct Hint {
    on: Cause,
    when: fn(&Facts) -> bool,
    /// `{with}` and `{without}` stand for the side that has it and the other one.
    text: &'static str,
}

const ALWAYS: fn(&Facts) -> bool = |_| true;

const HINTS: &[Hint] = &[
    Hint {
        on: Cause::CommandLine,
        when: |f| f.looks_imported(),
        text: "It looks edited by a cloud's import: register the image from an untouched disk instead, or declare what the provider does with `[[parity.delta]]`.",
    },
    Hint {
        on: Cause::Packages,
        when: |f| f.security_pocket.is_some(),
        text: "{without} was built without the security pocket: see the package sources below. Build it again from the spec of {with}.",
    },
    Hint {
        on: Cause::Packages,
        when: ALWAYS,
        text: "Build both from one spec on one day, or keep one image and convert it.",
    },
    Hint {
        on: Cause::Capabilities,
        when: |f| f.lost_capabilities.is_some(),
        text: "All file capabilities are missing on {without}: it was copied without extended attributes, or owners were changed after setcap.",
    },
    Hint {
        on: Cause::SharedHostKeys,
        when: ALWAYS,
        text: "Build the image again with `devbox build`, which removes host keys, and replace the keys of every machine that runs it.",
    },
    Hint {
        on: Cause::PackageModified,
        when: ALWAYS,
        text: "Somebody edited these after the package was installed: reinstall the package, or make the change a step of the spec.",
    },
    Hint {
        on: Cause::Configuration,
        when: |f| f.looks_imported(),
        text: "It looks edited by a cloud's import (fstab, boot loader, an agent): register the image from an untouched disk instead.",
    },
    Hint {
        on: Cause::AccessLists,
        when: |f| f.lost_acls.is_some(),
        text: "All access lists are missing on {without}: it was repacked by something that drops them, as squashfs and cpio do.",
    },
    Hint {
        on: Cause::State,
        when: |f| f.booted.is_some(),
        text: "{with} was booted after it was sealed. Compare the sealed image itself, or build it again.",
    },
    Hint {
        on: Cause::Initramfs,
        when: |f| f.same_initramfs,
        text: "It was made again from the same files: rebuild it with SOURCE_DATE_EPOCH set, as `devbox build` does.",
    },
    Hint {
        on: Cause::Derived,
        when: |f| f.compiled_python,
        text: "Compiled Python differs: SOURCE_DATE_EPOCH was set in one build only.",
    },
    Hint {
        on: Cause::Bytes,
        when: |f| f.same_content,
        text: "The content is equal: somebody mounted one side for writing, or its filesystem was laid out again. Compare with `--level content`.",
    },
    Hint {
        on: Cause::Times,
        when: ALWAYS,
        text: "Times were not clamped in one build; `devbox build` clamps them to the source date.",
    },
];

/// The causes whose hints are not about how two images were made.
const OF_MACHINES: &[Cause] = &[Cause::PackageModified];

/// The hint for a group; none if no rule fits.
pub(super) fn of(cause: Cause, facts: &Facts) -> Option<String> {
    if facts.of == Of::Machine && !OF_MACHINES.contains(&cause) {
        return None;
    }
    let hint = HINTS.iter().find(|hint| hint.on == cause && (hint.when)(facts))?;
    // Which of the sides has what the hint is about: 0 or 1.
    let with = match cause {
        Cause::Packages => facts.security_pocket,
        Cause::Capabilities => facts.lost_capabilities,
        Cause::AccessLists => facts.lost_acls,
        Cause::State => facts.booted,
        _ => None,
    }
    .unwrap_or(0);
    let (with, without) = (facts.name(with), facts.name(1 - with));
    Some(hint.text.replace("{with}", with).replace("{without}", without))
}
