//! What differs between Linux, macOS and Windows: every system gives the same functions. Elsewhere a
//! system is named only where it goes without something: a module (`lib.rs`, `guest`), execute bits, links
//! that are not followed.
//!
//! devbox runs on Linux. The files of macOS and Windows are type-checked and were never run there.
//!
//! | what | Linux | macOS | Windows |
//! |---|---|---|---|
//! | a process, never mistaken for another one | pidfd and `/proc` | id, start and words, looked up again | the same |
//! | away from the terminal | `setsid` | a process group | no console |
//! | ends with devbox | `setpriv --pdeathsig` | a shell that watches both | a job object |
//! | private files | modes 0700 and 0600 | the same | what the profile's folder hands down |
//! | sockets | `AF_UNIX` of tokio | the same | `AF_UNIX` of Windows 10, by two threads |
//!
//! Locks need no seam: `std` has them everywhere.

#[cfg(any(windows, test))]
mod bridge;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(
    target_os = "linux",
    expect(unreachable_pub, reason = "here it is tested, and not used")
)]
mod listed;
#[cfg(any(target_os = "macos", all(target_os = "linux", test)))]
#[cfg_attr(
    target_os = "linux",
    expect(unreachable_pub, reason = "here it is tested, and not used")
)]
mod macos;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub use linux::{SOCKET_PATH, Tie, Watched, boot_id, in_front, processor, tie};
#[cfg(not(target_os = "linux"))]
pub use listed::{Watched, boot_id, processor};
#[cfg(target_os = "macos")]
pub use macos::{SOCKET_PATH, Tie, in_front, tie};
#[cfg(unix)]
pub use unix::{
    Stream, connect, connect_blocking, detach, end_group, fingerprint, free_bytes, make_private,
    os_string, private_dir, private_file, random, runtime_name, socket_pair, stored_bytes,
    sync_dir,
};
#[cfg(windows)]
pub use windows::{
    SOCKET_PATH, Stream, Tie, connect, connect_blocking, detach, end_group, fingerprint,
    free_bytes, in_front, make_private, os_string, private_dir, private_file, random, runtime_name,
    socket_pair, stored_bytes, sync_dir, tie,
};

/// Who a program outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// Goes on when devbox ends, however it ends.
    None,
    /// Ends with devbox, even if devbox is killed.
    Starter,
}
