//! Why a message is refused, and with which status.

use super::Name;

/// A message that cannot be used as it is. Each names the thing at fault; [`ParseError::status`] is the answer
/// that a request with this fault deserves (a response with it is dropped, RFC 3261 section 18.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("nothing but line ends (a keep-alive)")]
    Empty,
    #[error("the first line is neither a request nor a status line")]
    BadStartLine,
    #[error("SIP version is not 2.0")]
    BadVersion,
    #[error("message longer than the limit")]
    TooLong,
    #[error("more header fields than the limit")]
    TooManyHeaders,
    #[error("no empty line ends the header fields")]
    NoEndOfHead,
    #[error("header field {0} is missing")]
    MissingHeader(Name),
    #[error("header field {0} is malformed")]
    BadHeader(Name),
    #[error("header field {0} must not occur twice")]
    DuplicateHeader(Name),
    #[error("CSeq method is not that of the request line")]
    MethodMismatch,
    #[error("malformed URI")]
    BadUri,
    #[error("URI scheme is not supported")]
    UnsupportedScheme,
    #[error("Content-Length does not fit the message")]
    BadContentLength,
}

/// Result of a parse.
pub type Result<T> = std::result::Result<T, ParseError>;

impl ParseError {
    /// Status code of the answer to a request with this fault (RFC 3261 section 21.4 and 21.5).
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            ParseError::BadVersion => 505,
            ParseError::TooLong => 513,
            ParseError::UnsupportedScheme => 416,
            _ => 400,
        }
    }

    /// Reason phrase that tells the sender what to mend ("Bad Call-ID" and so on). Allocates: for refusals only.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            ParseError::BadVersion | ParseError::TooLong | ParseError::UnsupportedScheme => {
                super::reason_phrase(self.status()).to_owned()
            }
            ParseError::MissingHeader(n) => format!("Missing {n}"),
            ParseError::BadHeader(n) => format!("Bad {n}"),
            ParseError::DuplicateHeader(n) => format!("Repeated {n}"),
            ParseError::MethodMismatch => "Bad CSeq Method".to_owned(),
            ParseError::BadUri => "Bad Request-URI".to_owned(),
            ParseError::BadContentLength => "Bad Content-Length".to_owned(),
            ParseError::TooManyHeaders => "Too Many Header Fields".to_owned(),
            _ => super::reason_phrase(400).to_owned(),
        }
    }
}
