//! Typed access to the header fields of a [`Message`].

use super::text::{clamped_number, has_blank, split_top, trim};
use super::value::delta_seconds;
use super::{
    CSeq, ContentType, DialogRef, Message, Method, Name, NameAddr, ParseError, RAck, Result, Scheme, SessionExpires,
    Start, Tag, Token, Uri, Via, number,
};
use std::cell::Cell;

impl<'a> Message<'a> {
    fn need(&self, id: Name) -> Result<&'a [u8]> {
        self.first(id).ok_or(ParseError::MissingHeader(id))
    }

    /// The first Via value.
    ///
    /// # Errors
    /// Missing or malformed.
    pub fn top_via(&self) -> Result<Via<'a>> {
        Via::parse(split_top(self.need(Name::Via)?, b',').0)
    }

    /// From.
    ///
    /// # Errors
    /// Missing or malformed; a tag that is no word is malformed, too.
    pub fn from(&self) -> Result<NameAddr<'a>> {
        Ok(self.tagged(Name::From)?.0)
    }

    /// To.
    ///
    /// # Errors
    /// Missing or malformed; a tag that is no word is malformed, too.
    pub fn to(&self) -> Result<NameAddr<'a>> {
        Ok(self.tagged(Name::To)?.0)
    }

    fn tag(&self, id: Name, kept: &Cell<Tag>) -> Option<&'a [u8]> {
        match kept.get() {
            Tag::At { start, len } => self.raw.get(usize::from(start)..usize::from(start) + usize::from(len)),
            Tag::None => None,
            Tag::Unknown => {
                let tag = self.tagged(id).ok().and_then(|(_, tag)| tag);
                let at = tag.map(|tag| (tag.as_ptr() as usize - self.raw.as_ptr() as usize, tag.len()));
                kept.set(at.map_or(Tag::None, |(at, len)| Tag::At { start: at as u16, len: len as u16 }));
                tag
            }
        }
    }

    /// A tag is a token, of one character at least (RFC 3261 section 25.1, `tag-param`).
    fn tagged(&self, id: Name) -> Result<(NameAddr<'a>, Option<&'a [u8]>)> {
        let addr = NameAddr::parse(self.need(id)?, id)?;
        match addr.params.get("tag") {
            None => Ok((addr, None)),
            Some(Some(tag)) if !tag.is_empty() && !has_blank(tag) => Ok((addr, Some(tag))),
            Some(_) => Err(ParseError::BadHeader(id)),
        }
    }

    /// The first Contact; None where there is none.
    ///
    /// # Errors
    /// Malformed.
    pub fn contact(&self) -> Result<Option<NameAddr<'a>>> {
        let first = self.values(Name::Contact).next();
        first.map(|v| NameAddr::parse(v, Name::Contact)).transpose()
    }

    /// All Contacts, in order.
    pub fn contacts(&self) -> impl Iterator<Item = Result<NameAddr<'a>>> + '_ {
        self.values(Name::Contact).map(|v| NameAddr::parse(v, Name::Contact))
    }

    /// CSeq.
    ///
    /// # Errors
    /// Missing, malformed, or not below 2^31.
    pub fn cseq(&self) -> Result<CSeq<'a>> {
        CSeq::parse(self.need(Name::CSeq)?)
    }

    /// Call-ID, compared byte by byte.
    ///
    /// # Errors
    /// Missing, empty, or with a blank inside.
    pub fn call_id(&self) -> Result<&'a [u8]> {
        let id = self.need(Name::CallId)?;
        if id.is_empty() || has_blank(id) {
            return Err(ParseError::BadHeader(Name::CallId));
        }
        Ok(id)
    }

    /// Tag of From; None where it (or From) is missing or malformed.
    #[must_use]
    pub fn from_tag(&self) -> Option<&'a [u8]> {
        self.tag(Name::From, &self.tags[0])
    }

    /// Tag of To; None where it (or To) is missing or malformed.
    #[must_use]
    pub fn to_tag(&self) -> Option<&'a [u8]> {
        self.tag(Name::To, &self.tags[1])
    }

    /// Max-Forwards.
    ///
    /// # Errors
    /// Not a number from 0 to 255 (RFC 3261 section 20.22).
    pub fn max_forwards(&self) -> Result<Option<u32>> {
        let Some(value) = self.first(Name::MaxForwards) else { return Ok(None) };
        match number(value) {
            Some(n) if n <= 255 => Ok(Some(n)),
            _ => Err(ParseError::BadHeader(Name::MaxForwards)),
        }
    }

    /// Content-Type; None where it is missing or malformed.
    #[must_use]
    pub fn content_type(&self) -> Option<ContentType<'a>> {
        ContentType::parse(self.first(Name::ContentType)?)
    }

    /// Content-Disposition; None where it is missing or malformed.
    #[must_use]
    pub fn content_disposition(&self) -> Option<Token<'a>> {
        Token::parse(self.first(Name::ContentDisposition)?)
    }

    /// Expires in seconds, clamped to `u32::MAX`.
    ///
    /// # Errors
    /// Not a number.
    pub fn expires(&self) -> Result<Option<u32>> {
        let Some(value) = self.first(Name::Expires) else { return Ok(None) };
        clamped_number(value).map(Some).ok_or(ParseError::BadHeader(Name::Expires))
    }

    /// Session-Expires (RFC 4028).
    ///
    /// # Errors
    /// Malformed.
    pub fn session_expires(&self) -> Result<Option<SessionExpires>> {
        self.first(Name::SessionExpires).map(SessionExpires::parse).transpose()
    }

    /// Min-SE in seconds (RFC 4028).
    ///
    /// # Errors
    /// Malformed.
    pub fn min_se(&self) -> Result<Option<u32>> {
        let Some(value) = self.first(Name::MinSe) else { return Ok(None) };
        delta_seconds(value).map(|(n, _)| Some(n)).ok_or(ParseError::BadHeader(Name::MinSe))
    }

    /// Retry-After in seconds; None where it is missing or malformed.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        delta_seconds(self.first(Name::RetryAfter)?).map(|(n, _)| n)
    }

    /// RSeq (RFC 3262).
    ///
    /// # Errors
    /// Not a number.
    pub fn rseq(&self) -> Result<Option<u32>> {
        let Some(value) = self.first(Name::RSeq) else { return Ok(None) };
        number(value).map(Some).ok_or(ParseError::BadHeader(Name::RSeq))
    }

    /// RAck (RFC 3262).
    ///
    /// # Errors
    /// Malformed.
    pub fn rack(&self) -> Result<Option<RAck<'a>>> {
        self.first(Name::RAck).map(RAck::parse).transpose()
    }

    /// Event (RFC 6665); None where it is missing or malformed.
    #[must_use]
    pub fn event(&self) -> Option<Token<'a>> {
        Token::parse(self.first(Name::Event)?)
    }

    /// Subscription-State (RFC 6665); None where it is missing or malformed.
    #[must_use]
    pub fn subscription_state(&self) -> Option<Token<'a>> {
        Token::parse(self.first(Name::SubscriptionState)?)
    }

    /// Refer-To (RFC 3515).
    ///
    /// # Errors
    /// Malformed.
    pub fn refer_to(&self) -> Result<Option<NameAddr<'a>>> {
        self.first(Name::ReferTo).map(|v| NameAddr::parse(v, Name::ReferTo)).transpose()
    }

    /// Replaces (RFC 3891).
    ///
    /// # Errors
    /// Malformed.
    pub fn replaces(&self) -> Result<Option<DialogRef<'a>>> {
        self.first(Name::Replaces).map(|v| DialogRef::parse(v, Name::Replaces)).transpose()
    }

    /// Whether the list field `id` (Supported, Require, Allow, ...) holds `token`, in any case.
    #[must_use]
    pub fn lists(&self, id: Name, token: &str) -> bool {
        self.values(id).any(|v| v.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether Allow names `method`; true where there is no Allow at all (RFC 3261 section 20.5: nothing is known).
    #[must_use]
    pub fn allows(&self, method: Method<'_>) -> bool {
        !self.has(Name::Allow) || self.values(Name::Allow).any(|v| v == method.as_bytes())
    }

    /// The Request-URI in its parts.
    ///
    /// # Errors
    /// `BadUri`; `UnsupportedScheme` for other schemes than sip, sips and tel (RFC 3261 section 8.2.2.1).
    pub fn request_uri(&self) -> Result<Uri<'a>> {
        let uri = Uri::parse(self.uri().ok_or(ParseError::BadStartLine)?)?;
        match uri.scheme {
            Scheme::Other(_) => Err(ParseError::UnsupportedScheme),
            _ => Ok(uri),
        }
    }

    /// Everything in a request on which a user agent acts, before it acts: Request-URI, Vias, From, To,
    /// Max-Forwards, Contacts, routes, Content-Type.
    ///
    /// # Errors
    /// The first fault, in the order in which RFC 3261 section 8.2 treats them.
    pub fn check_request(&self) -> Result<()> {
        if trim(split_top(self.need(Name::Via)?, b',').0).is_empty() {
            return Err(ParseError::BadHeader(Name::Via));
        }
        for via in self.values(Name::Via) {
            Via::parse(via)?;
        }
        for (id, addr) in [(Name::From, self.from()?), (Name::To, self.to()?)] {
            addr.uri_parsed().map_err(|_| ParseError::BadHeader(id))?;
        }
        self.max_forwards()?;
        self.request_uri()?;
        for contact in self.contacts() {
            let contact = contact?;
            if !contact.is_star() {
                contact.uri_parsed().map_err(|_| ParseError::BadHeader(Name::Contact))?;
            }
        }
        for id in [Name::Route, Name::RecordRoute] {
            for route in self.values(id) {
                NameAddr::parse(route, id)?.uri_parsed().map_err(|_| ParseError::BadHeader(id))?;
            }
        }
        if self.has(Name::ContentType) && self.content_type().is_none() {
            return Err(ParseError::BadHeader(Name::ContentType));
        }
        Ok(())
    }

    /// Reason phrase of a response.
    #[must_use]
    pub const fn reason(&self) -> Option<&'a [u8]> {
        match self.start() {
            Start::Response { reason, .. } => Some(reason),
            Start::Request { .. } => None,
        }
    }
}
