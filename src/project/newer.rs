//! Whether there is a newer version of a box than the one that a project has: asked anew, or once a day beside `up`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use semver::Version;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::digest::FileDigest;
use crate::error::{Error, Result};
use crate::event::Events;
use crate::host::Paths;
use crate::lock::Lock;
use crate::project::suspend::now;
use crate::registry::address::{Address, Place, Which};
use crate::registry::{self, Options, Policy, Retry};
use crate::spec::{Arch, BoxPlace, BoxSource, Spec, Wish};

/// An answer is good for so many seconds; none, for so many.
const GOOD: i64 = 24 * 3600;
const BAD: i64 = 3600;
/// How long a registry may take beside `up`, and how long `up` waits for it at its end.
const DEADLINE: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_millis(500);
/// Largest remembered answer in bytes.
const LARGEST: u64 = 64 << 10;

/// What a place is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where.
    pub place: Place,
    wish: Wish,
    arch: Arch,
}

/// The newest box that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// Its version.
    pub version: String,
    /// The digest of its manifest there, where that is what tells it from others.
    pub manifest: Option<FileDigest>,
}

impl Question {
    /// What fits a source, if that can change: none of a box of the own store, of one version or digest.
    ///
    /// # Errors
    /// The place is none.
    pub fn of_source(source: &BoxSource, arch: Arch) -> Result<Option<Self>> {
        match (&source.from, &source.wish) {
            (BoxPlace::At(place), wish @ (Wish::Range(_) | Wish::Channel(_))) => {
                let (place, wish) = (Address::parse(place)?.place, wish.clone());
                Ok(Some(Question { place, wish, arch }))
            }
            _ => Ok(None),
        }
    }

    /// The newest release where the spec's own box lives.
    ///
    /// # Errors
    /// The place is none.
    pub fn of_home(spec: &Spec) -> Result<Option<Self>> {
        let Some(place) = &spec.registry else { return Ok(None) };
        let wish = Wish::Range(semver::VersionReq::STAR);
        Ok(Some(Question { place: Address::parse(place)?.place, wish, arch: spec.arch }))
    }

    /// Asks.
    ///
    /// # Errors
    /// The place cannot be reached, or gives what is no answer.
    pub async fn ask(
        &self,
        options: &Options,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Option<Newest>> {
        let arch = Some(self.arch.as_str().to_owned());
        let options = Options { arch, ..options.clone() };
        let Wish::Channel(channel) = &self.wish else {
            let asked = registry::newest(&self.place, &self.wish, &options, events, cancel);
            let newest = asked.await?.0;
            return Ok(
                newest.map(|version| Newest { version: version.to_string(), manifest: None })
            );
        };
        let which = Some(Which::Tag(channel.clone()));
        let address = Address { place: self.place.clone(), which };
        let Some(offered) = registry::look(&address, &options, events, cancel).await? else {
            return Ok(None);
        };
        // It is shown to people.
        let version = Version::parse(&offered.config.version).map_err(|e| {
            Error::undetermined(format!("the version of `{address}` is none")).cause(e)
        })?;
        Ok(Some(Newest { version: version.to_string(), manifest: Some(offered.manifest) }))
    }
}

impl Newest {
    /// Whether it is a newer version than `version`, or, where a channel moved, another box than the one with this manifest.
    #[must_use]
    pub fn is_newer(&self, version: &str, manifest: Option<FileDigest>) -> bool {
        match (self.manifest, manifest) {
            (Some(newest), Some(has)) => newest != has,
            (Some(_), None) => self.version != version,
            (None, _) => match (Version::parse(&self.version), Version::parse(version)) {
                (Ok(newest), Ok(has)) => newest > has,
                _ => false,
            },
        }
    }
}

/// A question that is asked while a project's machines come up, and what is said if there is something newer.
struct Asked {
    question: Question,
    version: String,
    manifest: Option<FileDigest>,
    next: &'static str,
    what: &'static str,
}

/// The questions of one `up`, on their way.
#[derive(Debug)]
pub(super) struct Newer {
    asking: Vec<JoinHandle<Option<String>>>,
}

impl Newer {
    /// Asks, unless it was done a short while ago or the user does not want it. Never fails.
    pub(super) fn ask(spec: &Spec, paths: &Paths) -> Self {
        let asked = if spec.updates { questions(spec).unwrap_or_default() } else { vec![] };
        let folder = paths.cache.join("newer");
        let asking = asked.into_iter().map(|one| tokio::spawn(one.told(folder.clone()))).collect();
        Newer { asking }
    }

    /// Says what there is, if that is known by now.
    pub(super) async fn tell(self, events: &Events) {
        let end = tokio::time::Instant::now() + GRACE;
        for asking in self.asking {
            let stop = asking.abort_handle();
            match tokio::time::timeout_at(end, asking).await {
                Ok(Ok(Some(line))) => events.note(line),
                Ok(_) => {}
                Err(_) => stop.abort(),
            }
        }
    }
}

/// What a project can be asked about, with what it has.
fn questions(spec: &Spec) -> Result<Vec<Asked>> {
    let mut all = vec![];
    if let crate::spec::Source::Box(source) = &spec.source
        && let Some(question) = Question::of_source(source, spec.arch)?
        && let Some(pinned) = Lock::of(spec)?.and_then(|lock| lock.pinned_box(source))
    {
        all.push(Asked {
            question,
            version: pinned.version,
            manifest: Some(pinned.manifest),
            next: "`devbox box update` goes there",
            what: "devbox.lock",
        });
    }
    if spec.is_box().is_none()
        && let Some(question) = Question::of_home(spec)?
    {
        all.push(Asked {
            question,
            version: spec.version.clone(),
            manifest: None,
            next: "take a devbox.toml that names it",
            what: "devbox.toml",
        });
    }
    Ok(all)
}

/// What was answered last.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    question: String,
    asked: i64,
    /// None if nobody answered.
    answer: Option<Option<Newest>>,
}

impl Asked {
    async fn told(self, folder: PathBuf) -> Option<String> {
        let words = format!("{}, {}", self.question.place, self.question.wish);
        let file = folder.join(FileDigest::of(words.as_bytes()).hex());
        let newest = match remembered(&file, &words) {
            Some(answer) => answer?,
            None => {
                // Until there is an answer, and if `up` ends before: nobody did.
                remember(&folder, &file, &words, None);
                let options = Options {
                    retry: Retry { without_progress: 1, ..Retry::default() },
                    ..Options::new(Policy::none())
                };
                let (events, cancel) = (Events::silent(), CancellationToken::new());
                let asked = self.question.ask(&options, &events, &cancel);
                let answer = tokio::time::timeout(DEADLINE, asked).await.ok()?.ok()?;
                remember(&folder, &file, &words, Some(answer.clone()));
                answer
            }
        };
        let newest = newest.filter(|newest| newest.is_newer(&self.version, self.manifest))?;
        let Asked { question, version, what, next, .. } = self;
        let place = &question.place;
        Some(match newest.version == version {
            true => format!("{place} has another build of {version} than {what}; {next}"),
            false => format!("{place} has {}, and {what} has {version}; {next}", newest.version),
        })
    }
}

/// The answer of a short while ago; the inner one is none where nobody answered then.
fn remembered(file: &Path, words: &str) -> Option<Option<Option<Newest>>> {
    let mut text = vec![];
    fs::File::open(file).ok()?.take(LARGEST).read_to_end(&mut text).ok()?;
    let found: Remembered = serde_json::from_slice(&text).ok()?;
    let good = if found.answer.is_some() { GOOD } else { BAD };
    let age = now().checked_sub(found.asked)?;
    (found.question == words && (0..good).contains(&age)).then_some(found.answer)
}

/// That it cannot be kept only means that it is asked again.
fn remember(folder: &Path, file: &Path, words: &str, answer: Option<Option<Newest>>) {
    let write = || -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        let text = Remembered { question: words.to_owned(), asked: now(), answer };
        new.write_all(&crate::store::encode(&text)?)?;
        new.persist(file).map_err(|e| e.error)?;
        Ok(())
    };
    let _ = write();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_is_by_version_and_of_a_channel_by_digest() {
        let (a, b) = (FileDigest::of(b"a"), FileDigest::of(b"b"));
        let newest = |version: &str, manifest| Newest { version: version.to_owned(), manifest };
        assert!(newest("1.10.0", None).is_newer("1.9.0", Some(a)));
        assert!(!newest("1.9.0", None).is_newer("1.10.0", None));
        assert!(newest("1.0.0", None).is_newer("1.0.0-rc.1", None));
        assert!(!newest("nonsense", None).is_newer("1.0.0", None));
        assert!(newest("1.0.0", Some(b)).is_newer("1.1.0", Some(a)), "a channel can go back");
        assert!(!newest("1.0.0", Some(a)).is_newer("1.0.0", Some(a)));
    }

    #[test]
    fn an_answer_is_good_for_a_day_and_damage_is_none() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = dir.path().join("newer");
        let file = folder.join("x");
        assert!(remembered(&file, "q").is_none());
        let newest = Newest { version: "1.0.0".to_owned(), manifest: None };
        remember(&folder, &file, "q", Some(Some(newest.clone())));
        assert_eq!(remembered(&file, "q"), Some(Some(Some(newest))));
        assert!(remembered(&file, "another").is_none());
        remember(&folder, &file, "q", None);
        assert_eq!(remembered(&file, "q"), Some(None));
        let text = |asked: i64, answer: &str| {
            let text = format!(r#"{{"question":"q","asked":{asked},"answer":{answer}}}"#);
            std::fs::write(&file, text).expect("written");
            remembered(&file, "q").is_some()
        };
        assert!(text(now() - GOOD + 60, r#"{"version":"1.0.0","manifest":null}"#));
        for (asked, answer) in [
            (now() - GOOD - 1, r#"{"version":"1.0.0","manifest":null}"#),
            (now() - BAD - 1, "null"),
            (now() + 99, "null"),
        ] {
            assert!(!text(asked, answer), "{asked} {answer}");
        }
        std::fs::write(&file, "x".repeat(200_000)).expect("written");
        assert!(remembered(&file, "q").is_none());
    }
}
