//! A session description as a leg's peer gave it, read once: what the engine asks of it again and again is kept beside it.

use std::ops::Range;
use strowger_dispatch::Media;
use strowger_sip::msg::{ContentType, Message, Name};
use strowger_sip::sdp::{self, Flavour, Sdp};

const PLAIN: &[u8] = b"application/sdp";

/// A session description with its content type, as it came: in one allocation, behind what was read of it.
///
/// Little-endian words of 32 bits: how many m-lines it has; where the description begins and ends in the data, and in it the
/// text of its o-line, up to the line feed; length of the content type, [`NO_TYPE`] for application/sdp. Then the [`Flavour`], the
/// data, the content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body(Box<[u8]>);

const WORDS: usize = 6;
const HEAD: usize = 4 * WORDS + 1;
const NO_TYPE: u32 = u32::MAX;
/// By their numbers in a [`Body`].
const FLAVOURS: [Flavour; 4] = [Flavour::Unusable, Flavour::Audio, Flavour::Chat, Flavour::Other];

impl Body {
    /// The description in a message, if it has a sound one.
    pub(crate) fn of(msg: &Message<'_>) -> Option<Body> {
        let data = msg.body();
        if data.is_empty() {
            return None;
        }
        let content_type = msg.first(Name::ContentType);
        let range = sdp_range(content_type, data)?;
        let sdp = Sdp::parse(data.get(range.clone())?).ok()?;
        Some(Body::read(content_type, data, range, Some(sdp)))
    }

    /// As [`Body::of`], of what one was made of before.
    pub(crate) fn again(content_type: Option<&[u8]>, data: &[u8]) -> Body {
        let range = sdp_range(content_type, data).unwrap_or(0..data.len());
        let sdp = data.get(range.clone()).and_then(|sdp| Sdp::parse(sdp).ok());
        Body::read(content_type, data, range, sdp)
    }

    fn read(content_type: Option<&[u8]>, data: &[u8], range: Range<usize>, sdp: Option<Sdp<'_>>) -> Body {
        let other = content_type.filter(|t| !t.eq_ignore_ascii_case(PLAIN));
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (streams, flavour) = sdp.map_or((0, Flavour::Unusable), |sdp| (sdp.media_count(), sdp.flavour()));
        let origin = sdp.map_or(0..0, |sdp| sdp.origin_text());
        let words = [streams, range.start, range.end, origin.start, origin.end].map(short);
        let mut all = Vec::with_capacity(HEAD + data.len() + other.map_or(0, <[u8]>::len));
        for word in words.into_iter().chain([other.map_or(NO_TYPE, |t| short(t.len()))]) {
            all.extend_from_slice(&word.to_le_bytes());
        }
        all.push(FLAVOURS.iter().position(|f| *f == flavour).unwrap_or_default() as u8);
        all.extend_from_slice(data);
        all.extend_from_slice(other.unwrap_or_default());
        Body(all.into_boxed_slice())
    }

    fn word(&self, n: usize) -> u32 {
        self.0.as_chunks().0.get(n).map_or(0, |word| u32::from_le_bytes(*word))
    }

    /// Where the data end.
    fn end(&self) -> usize {
        let kind = Some(self.word(5)).filter(|len| *len != NO_TYPE);
        self.0.len() - kind.map_or(0, |len| len as usize)
    }

    /// `None`: application/sdp.
    pub(crate) fn content_type(&self) -> Option<&[u8]> {
        (self.word(5) != NO_TYPE).then(|| &self.0[self.end()..])
    }

    /// The whole body.
    pub(crate) fn data(&self) -> &[u8] {
        &self.0[HEAD..self.end()]
    }

    /// What its first stream in use carries; `None`: nothing that an agent takes.
    pub(crate) fn media(&self) -> Option<Media> {
        match FLAVOURS[usize::from(self.0[HEAD - 1])] {
            Flavour::Audio => Some(Media::Audio),
            Flavour::Chat => Some(Media::Chat),
            Flavour::Other | Flavour::Unusable => None,
        }
    }

    /// How many streams it describes.
    pub(crate) fn streams(&self) -> usize {
        self.word(0) as usize
    }

    /// The session description in it.
    pub(crate) fn sdp(&self) -> &[u8] {
        self.data().get(self.word(1) as usize..self.word(2) as usize).unwrap_or_default()
    }

    /// The description before and behind the text of its o-line. That text ends before the line feed.
    pub(crate) fn around_origin(&self) -> (&[u8], &[u8]) {
        let sdp = self.sdp();
        let (start, end) = (self.word(3) as usize, self.word(4) as usize);
        (sdp.get(..start).unwrap_or_default(), sdp.get(end..).unwrap_or_default())
    }

    /// Whether its lines end with CR LF, as the o-line does.
    pub(crate) fn ends_with_cr(&self) -> bool {
        let end = self.word(4) as usize;
        end > 0 && self.sdp().get(end - 1) == Some(&b'\r')
    }

    /// Whether the far end must be told that this took the other's place: they differ in address, port or formats.
    pub(crate) fn differs_in_media(&self, other: &Body) -> bool {
        // Nearly always it is the same but for its version.
        self.around_origin() != other.around_origin() && sdp::differs_in_media(self.sdp(), other.sdp())
    }
}

/// Where the session description stands in a body (no content type: the whole).
pub(crate) fn sdp_range(content_type: Option<&[u8]>, data: &[u8]) -> Option<Range<usize>> {
    match content_type.filter(|t| !t.eq_ignore_ascii_case(PLAIN)) {
        None => Some(0..data.len()),
        Some(other) => sdp::find_sdp(&ContentType::parse(other)?, data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &[u8] =
        b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";

    #[test]
    fn what_is_kept_of_a_description_is_what_it_says() {
        let body = Body::again(None, OFFER);
        assert_eq!((body.media(), body.streams(), body.sdp()), (Some(Media::Audio), 1, OFFER));
        let (before, after) = body.around_origin();
        assert_eq!((before, after.starts_with(b"\ns=-"), body.ends_with_cr()), (&b"v=0\r\n"[..], true, true));
        let other = Body::again(None, &[before, b"o=- 1 2 IN IP4 10.0.0.1\r", after].concat());
        assert!(!body.differs_in_media(&other) && body != other);
        let moved = String::from_utf8_lossy(OFFER).replace("audio 9", "audio 7");
        assert!(body.differs_in_media(&Body::again(None, moved.as_bytes())));
    }

    #[test]
    fn one_inside_a_multipart_body_is_found() {
        let kind = b"multipart/mixed;boundary=b";
        let data = [b"--b\r\nContent-Type: application/sdp\r\n\r\n", OFFER, b"\r\n--b--\r\n"].concat();
        let body = Body::again(Some(kind), &data);
        assert_eq!((body.content_type(), body.data(), body.sdp()), (Some(&kind[..]), &data[..], OFFER));
        assert_eq!(body.around_origin().0, b"v=0\r\n");
    }

    #[test]
    fn what_is_no_description_has_no_media() {
        let body = Body::again(None, b"hello");
        assert_eq!((body.media(), body.streams(), body.around_origin()), (None, 0, (&b""[..], &b"hello"[..])));
    }
}
