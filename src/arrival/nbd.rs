//! The words of NBD, as far as a server of one read-only disk needs them (NetworkBlockDevice, `doc/proto.md`: fixed newstyle
//! handshake, simple replies). Numbers are big-endian. Pure: bytes in, meaning out; all that a client says is hostile.

/// Most bytes of an option that are read: a name of at most 4096 bytes and a few numbers.
pub(super) const MOST_OPTION: u32 = 8 << 10;
/// Most bytes of one read, which is what clients may ask for anyway ("Size constraints").
pub(super) const MOST_READ: u32 = 32 << 20;
/// Bytes of a request's header.
pub(super) const REQUEST: usize = 28;

const MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const HAVE_OPTION: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Handshake flags of both sides.
const FIXED_NEWSTYLE: u32 = 1;
const NO_ZEROES: u32 = 2;

/// `NBD_FLAG_HAS_FLAGS`, `_READ_ONLY`, `_SEND_FLUSH`, `_CAN_MULTI_CONN`.
const TRANSMISSION: u16 = 1 | 1 << 1 | 1 << 2 | 1 << 8;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;
/// Blocks as a client should read them; what it must is one byte.
const PREFERRED: u32 = 4096;

/// What the server says first.
#[must_use]
pub(super) fn greeting() -> Vec<u8> {
    let mut out = vec![];
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&HAVE_OPTION.to_be_bytes());
    out.extend_from_slice(&((FIXED_NEWSTYLE | NO_ZEROES) as u16).to_be_bytes());
    out
}

/// What the client answers: whether it wants no padding; none if it speaks another dialect.
#[must_use]
pub(super) fn client_flags(bytes: [u8; 4]) -> Option<bool> {
    let flags = u32::from_be_bytes(bytes);
    let known = flags & !(FIXED_NEWSTYLE | NO_ZEROES) == 0 && flags & FIXED_NEWSTYLE != 0;
    known.then_some(flags & NO_ZEROES != 0)
}

/// The head of an option: its number and the length of what follows; none if it is no option.
#[must_use]
pub(super) fn option_head(bytes: [u8; 16]) -> Option<(u32, u32)> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (option, length) = rest.split_first_chunk::<4>()?;
    let length = length.first_chunk::<4>()?;
    (u64::from_be_bytes(*magic) == HAVE_OPTION)
        .then(|| (u32::from_be_bytes(*option), u32::from_be_bytes(*length)))
}

/// What follows an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Another option: these bytes are the answer.
    Option(Vec<u8>),
    /// These bytes, and then requests.
    Requests(Vec<u8>),
    /// These bytes, and then nothing.
    End(Vec<u8>),
}

/// What the server answers to an option, for a disk of `size` bytes. `data` is none where it was too long to be read.
#[must_use]
pub(super) fn option(number: u32, data: Option<&[u8]>, size: u64, no_zeroes: bool) -> Next {
    const EXPORT_NAME: u32 = 1;
    const ABORT: u32 = 2;
    const LIST: u32 = 3;
    const INFO: u32 = 6;
    const GO: u32 = 7;
    const ACK: u32 = 1;
    const SERVER: u32 = 2;
    const INFORMATION: u32 = 3;
    const UNSUPPORTED: u32 = 1 << 31 | 1;
    const INVALID: u32 = 1 << 31 | 3;
    const UNKNOWN: u32 = 1 << 31 | 6;
    const TOO_BIG: u32 = 1 << 31 | 9;

    let reply = |kind: u32, data: &[u8]| reply(number, kind, data);
    let Some(data) = data else { return Next::Option(reply(TOO_BIG, &[])) };
    match number {
        // The disk has no name. A client that asks for another one this way can only be hung up on.
        EXPORT_NAME if data.is_empty() => {
            let mut out = [size.to_be_bytes().as_slice(), &TRANSMISSION.to_be_bytes()].concat();
            out.resize(out.len() + if no_zeroes { 0 } else { 124 }, 0);
            Next::Requests(out)
        }
        EXPORT_NAME => Next::End(vec![]),
        ABORT => Next::End(reply(ACK, &[])),
        LIST if data.is_empty() => {
            Next::Option([reply(SERVER, &0u32.to_be_bytes()), reply(ACK, &[])].concat())
        }
        LIST => Next::Option(reply(INVALID, &[])),
        INFO | GO => match name_of_info(data) {
            None => Next::Option(reply(INVALID, &[])),
            Some(name) if !name.is_empty() => Next::Option(reply(UNKNOWN, &[])),
            Some(_) => {
                let mut export = INFO_EXPORT.to_be_bytes().to_vec();
                export.extend_from_slice(&size.to_be_bytes());
                export.extend_from_slice(&TRANSMISSION.to_be_bytes());
                let mut blocks = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                for bytes in [1, PREFERRED, MOST_READ] {
                    blocks.extend_from_slice(&bytes.to_be_bytes());
                }
                let out =
                    [reply(INFORMATION, &export), reply(INFORMATION, &blocks), reply(ACK, &[])];
                if number == GO { Next::Requests(out.concat()) } else { Next::Option(out.concat()) }
            }
        },
        _ => Next::Option(reply(UNSUPPORTED, &[])),
    }
}

fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(0).to_be_bytes();
    [
        OPTION_REPLY.to_be_bytes().as_slice(),
        &option.to_be_bytes(),
        &kind.to_be_bytes(),
        &length,
        data,
    ]
    .concat()
}

/// The name in the data of `NBD_OPT_INFO` and `NBD_OPT_GO`; none if the data contradicts itself.
fn name_of_info(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (name, rest) = rest.split_at_checked(length)?;
    let (count, wanted) = rest.split_first_chunk::<2>()?;
    (wanted.len() == usize::from(u16::from_be_bytes(*count)) * 2).then_some(name)
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Bytes of the disk.
    Read,
    /// That what was written is durable; nothing can be written.
    Flush,
    /// To go.
    Disconnect,
    /// To write, with as many bytes as the request has behind it.
    Write,
    /// To change the disk in another way.
    Change,
    /// What this server does not know.
    Other,
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// What is wanted.
    pub(super) command: Command,
    /// Whether a flag was given; this server knows none.
    pub(super) flags: bool,
    /// By which the client knows the answer.
    pub(super) cookie: u64,
    /// First byte.
    pub(super) offset: u64,
    /// How many bytes.
    pub(super) length: u32,
}

impl Request {
    /// Reads a header; none if it is not one, and the connection is of no use any more.
    #[must_use]
    pub(super) fn parse(bytes: &[u8; REQUEST]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first_chunk::<2>()?;
        let (command, rest) = rest.split_first_chunk::<2>()?;
        let (cookie, rest) = rest.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let length = rest.first_chunk::<4>()?;
        if u32::from_be_bytes(*magic) != REQUEST_MAGIC {
            return None;
        }
        let command = match u16::from_be_bytes(*command) {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => Command::Flush,
            4 | 6 => Command::Change,
            _ => Command::Other,
        };
        Some(Request {
            command,
            flags: u16::from_be_bytes(*flags) != 0,
            cookie: u64::from_be_bytes(*cookie),
            offset: u64::from_be_bytes(*offset),
            length: u32::from_be_bytes(*length),
        })
    }

    /// The bytes that are to be read of a disk of `size` bytes, or the error to answer with.
    pub(super) fn range(&self, size: u64) -> Result<std::ops::Range<u64>, Refused> {
        if self.flags || self.length == 0 {
            return Err(Refused::Invalid);
        }
        if self.length > MOST_READ {
            return Err(Refused::TooLong);
        }
        match self.offset.checked_add(u64::from(self.length)) {
            Some(end) if end <= size => Ok(self.offset..end),
            _ => Err(Refused::Invalid),
        }
    }
}

/// Why a request has no data as its answer ("Error values").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// `NBD_EPERM`: the disk is not written.
    ReadOnly,
    /// `NBD_EIO`: the bytes are not here, and did not come.
    NotHere,
    /// `NBD_EINVAL`: it asks for what is not there.
    Invalid,
    /// `NBD_EOVERFLOW`: it asks for too much.
    TooLong,
}

/// The header of an answer; data follows it where nothing was refused.
#[must_use]
pub(super) fn answer(cookie: u64, refused: Option<Refused>) -> [u8; 16] {
    let error: u32 = match refused {
        None => 0,
        Some(Refused::ReadOnly) => 1,
        Some(Refused::NotHere) => 5,
        Some(Refused::Invalid) => 22,
        Some(Refused::TooLong) => 75,
    };
    let mut out = [0; 16];
    let (magic, rest) = out.split_at_mut(4);
    let (code, name) = rest.split_at_mut(4);
    magic.copy_from_slice(&REPLY_MAGIC.to_be_bytes());
    code.copy_from_slice(&error.to_be_bytes());
    name.copy_from_slice(&cookie.to_be_bytes());
    out
}

/// All that a client may send, for a fuzz target: nothing of it may panic.
#[doc(hidden)]
pub fn exercise(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((head, more)) = rest.split_first_chunk::<16>() {
        let Some((number, length)) = option_head(*head) else { break };
        let data = more.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX));
        let (data, more) = data.map_or((None, more), |(data, more)| (Some(data), more));
        let Next::Option(said) = option(number, data, 1 << 30, false) else { break };
        assert!(said.len() >= 20);
        rest = more;
    }
    for header in bytes.as_chunks::<REQUEST>().0 {
        if let Some(request) = Request::parse(header)
            && let Ok(range) = request.range(1 << 30)
        {
            assert!(range.start < range.end && range.end <= 1 << 30);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &[u8], wanted: &[u16]) -> Vec<u8> {
        let mut out = u32::try_from(name.len()).expect("short").to_be_bytes().to_vec();
        out.extend_from_slice(name);
        out.extend_from_slice(&u16::try_from(wanted.len()).expect("few").to_be_bytes());
        wanted.iter().for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
        out
    }

    #[test]
    fn a_client_is_let_in_by_either_door_and_told_the_size() {
        let Next::Requests(go) = option(7, Some(&info(b"", &[3])), 0x1_0000, true) else {
            panic!("goes on")
        };
        // Two informations and an acknowledgement, each with a head of 20 bytes.
        assert_eq!(go.len(), 20 + 12 + 20 + 14 + 20);
        assert_eq!(go[20..32], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 7]);
        let Next::Requests(old) = option(1, Some(b""), 0x1_0000, false) else { panic!("goes on") };
        assert_eq!((old.len(), &old[..10]), (134, &go[22..32]));
        assert_eq!(option(1, Some(b"other"), 1, true), Next::End(vec![]));
        assert!(matches!(option(6, Some(&info(b"", &[])), 1, true), Next::Option(_)));
    }

    #[test]
    fn what_is_no_option_is_refused_and_the_connection_goes_on() {
        let code = |next: Next| match next {
            Next::Option(out) => u32::from_be_bytes(out[12..16].try_into().expect("four")),
            other => panic!("{other:?}"),
        };
        assert_eq!(code(option(8, Some(b""), 1, true)), 1 << 31 | 1, "structured replies");
        assert_eq!(code(option(7, Some(&info(b"x", &[])), 1, true)), 1 << 31 | 6);
        assert_eq!(code(option(7, Some(b"\xff\xff\xff\xff"), 1, true)), 1 << 31 | 3);
        assert_eq!(code(option(7, Some(&info(b"", &[1, 2])[..8]), 1, true)), 1 << 31 | 3);
        assert_eq!(code(option(7, None, 1, true)), 1 << 31 | 9);
        assert_eq!(option_head([0; 16]), None);
        assert_eq!(client_flags([0, 0, 0, 3]), Some(true));
        assert_eq!(client_flags([0, 0, 0, 2]), None);
        assert_eq!(client_flags([0, 0, 0, 9]), None);
    }

    fn request(command: u16, offset: u64, length: u32) -> [u8; REQUEST] {
        let mut out = REQUEST_MAGIC.to_be_bytes().to_vec();
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&command.to_be_bytes());
        out.extend_from_slice(&7u64.to_be_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.try_into().expect("a header")
    }

    #[test]
    fn only_bytes_that_are_there_are_read() {
        let range = |offset, length| {
            Request::parse(&request(0, offset, length)).expect("a request").range(1000)
        };
        assert_eq!(range(0, 1000), Ok(0..1000));
        assert_eq!(range(999, 1), Ok(999..1000));
        assert_eq!(range(999, 2), Err(Refused::Invalid));
        assert_eq!(range(u64::MAX, 2), Err(Refused::Invalid));
        assert_eq!(range(0, 0), Err(Refused::Invalid));
        assert_eq!(range(0, MOST_READ + 1), Err(Refused::TooLong));
        assert_eq!(Request::parse(&[0; REQUEST]), None);
        let write = Request::parse(&request(1, 0, 5)).expect("a request");
        assert_eq!((write.command, write.cookie, write.length), (Command::Write, 7, 5));
        assert_eq!(answer(7, Some(Refused::NotHere))[4..8], [0, 0, 0, 5]);
    }
}
