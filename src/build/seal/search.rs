//! Texts in a stream of bytes, wherever its pieces begin and end.

/// Looks for several texts in a stream of pieces.
pub(in crate::build) struct Search<'a> {
    needles: Vec<(memchr::memmem::Finder<'a>, bool)>,
    /// The end of the last piece, in which a text may have begun.
    tail: Vec<u8>,
    keep: usize,
}

impl<'a> Search<'a> {
    pub(in crate::build) fn new(needles: &[&'a [u8]]) -> Self {
        let keep = needles.iter().map(|n| n.len()).max().unwrap_or(1).saturating_sub(1);
        let needles = needles.iter().map(|n| (memchr::memmem::Finder::new(*n), false)).collect();
        Search { needles, tail: vec![], keep }
    }

    pub(in crate::build) fn feed(&mut self, piece: &[u8]) {
        // Over the seam, then in the piece itself.
        let seam = [&self.tail[..], &piece[..piece.len().min(self.keep)]].concat();
        for (finder, found) in &mut self.needles {
            *found = *found || finder.find(&seam).is_some() || finder.find(piece).is_some();
        }
        let last = [&self.tail[..], &piece[piece.len().saturating_sub(self.keep)..]].concat();
        self.tail = last[last.len().saturating_sub(self.keep)..].to_vec();
    }

    pub(in crate::build) fn found(&self) -> impl Iterator<Item = &[u8]> {
        self.needles.iter().filter(|(_, found)| *found).map(|(finder, _)| finder.needle())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_across_pieces_of_any_size() {
        for size in 1..12 {
            let text = b"....needle....";
            let mut search = Search::new(&[b"needle", b"absent"]);
            for piece in text.chunks(size) {
                search.feed(piece);
            }
            assert_eq!(search.found().collect::<Vec<_>>(), [b"needle"], "pieces of {size}");
        }
        let mut search = Search::new(&[b"needle"]);
        search.feed(b"needl");
        search.feed(b"xe");
        assert_eq!(search.found().count(), 0);
    }
}
