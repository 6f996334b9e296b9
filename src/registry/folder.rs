//! A folder with an OCI image layout: what a bucket, a share or a web server shows.

use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fs_err as fs;

use super::address::Which;
use super::http::Traffic;
use super::manifest::MAX_MANIFEST;
use super::remote::Access;
use crate::digest::FileDigest;
use crate::error::{Context as _, Error, Result};
use crate::store::{Descriptor, INDEX, Index, layout, lock};

/// An open folder.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    pub(super) traffic: Arc<Traffic>,
}

impl Folder {
    /// Opens it; to push, an absent one is made.
    pub(super) fn open(root: &Path, access: Access) -> Result<Self> {
        if !layout::is_present(root)? {
            if access == Access::Pull {
                return Err(Error::failed(format!("`{}` holds no boxes", root.display()))
                    .cause("it has no file `oci-layout`")
                    .hint("Check the path, or push a box there with `devbox box push`."));
            }
            fs::create_dir_all(root)?;
            let _lock = lock::exclusive(root)?;
            layout::create(root)?;
        }
        Ok(Folder { root: root.to_owned(), traffic: Arc::default() })
    }

    /// What it holds.
    pub(super) fn index(&self) -> Result<Index> {
        Index::read(&self.root)
    }

    fn path(&self, digest: FileDigest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn manifest(&self, which: &Which) -> Result<Option<Vec<u8>>> {
        let digest = match which {
            Which::Digest(digest) => *digest,
            Which::Tag(tag) => match Index::read(&self.root)?.get(tag) {
                Some(entry) => entry.digest,
                None => return Ok(None),
            },
        };
        let path = self.path(digest);
        let size = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if size > MAX_MANIFEST {
            return Err(Error::undetermined(format!("`{}` has {size} bytes", path.display()))
                .cause(format!("a manifest has at most {MAX_MANIFEST}")));
        }
        let bytes = fs::read(&path)?;
        self.received(bytes.len());
        Ok(Some(bytes))
    }

    fn received(&self, bytes: usize) {
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        self.traffic.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn part(&self, digest: FileDigest, range: Range<u64>) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let file = fs::File::open(&path)?;
        let size = file.metadata()?.len();
        if range.end > size {
            return Err(Error::failed(format!("`{}` is too short", path.display()))
                .cause(format!("it has {size} bytes, and {} are wanted", range.end)));
        }
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        file.file().read_exact_at(&mut bytes, range.start)?;
        self.received(bytes.len());
        Ok(bytes)
    }

    pub(super) fn has(&self, digest: FileDigest) -> bool {
        self.path(digest).is_file()
    }

    pub(super) fn put(&self, digest: FileDigest, bytes: &[u8]) -> Result<()> {
        let cannot = || format!("cannot write a blob into `{}`", self.root.display());
        // A copy of the folder need not have it.
        fs::create_dir_all(self.root.join("tmp")).context(cannot)?;
        let mut file = tempfile::NamedTempFile::new_in(self.root.join("tmp")).context(cannot)?;
        file.write_all(bytes).context(cannot)?;
        // A web server of another account reads it.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o444)).context(cannot)?;
        file.as_file().sync_all().context(cannot)?;
        file.persist(self.path(digest)).map_err(|e| e.error).context(cannot)?;
        self.traffic.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn put_manifest(&self, tag: &str, bytes: &[u8], kind: &str) -> Result<()> {
        let digest = self.put_durably(bytes)?;
        let _lock = lock::exclusive(&self.root)?;
        let mut index = Index::read(&self.root)?;
        index.put(tag, Descriptor::new(kind, digest, bytes.len() as u64));
        self.write(&index)
    }

    /// Replaces the list under `tag` by what `change` makes of it; none if it leaves it as it is. Nobody else changes it
    /// meanwhile.
    pub(super) fn change_list(
        &self,
        tag: &str,
        change: impl FnOnce(Option<&[u8]>) -> Result<Option<Vec<u8>>>,
    ) -> Result<()> {
        let _lock = lock::exclusive(&self.root)?;
        let before = self.manifest(&Which::Tag(tag.to_owned()))?;
        let Some(bytes) = change(before.as_deref())? else { return Ok(()) };
        let digest = self.put_durably(&bytes)?;
        let mut index = Index::read(&self.root)?;
        index.put_other(tag, Descriptor::new(INDEX, digest, bytes.len() as u64));
        self.write(&index)
    }

    fn put_durably(&self, bytes: &[u8]) -> Result<FileDigest> {
        let digest = FileDigest::of(bytes);
        self.put(digest, bytes)?;
        layout::sync_dir(&self.root.join("blobs/sha256"))?;
        Ok(digest)
    }

    /// The caller holds the lock.
    fn write(&self, index: &Index) -> Result<()> {
        index.write(&self.root)?;
        // It is made private, as those of a store are.
        let path = self.root.join("index.json");
        Ok(fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?)
    }
}
