//! Request methods.

use std::fmt;

macro_rules! methods {
    ($($variant:ident = $text:literal;)*) => {
        /// A method; case-sensitive (RFC 3261 section 7.1). Unknown ones keep their bytes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Method<'a> { $(#[doc = $text] $variant,)* #[doc = "Any other token."] Other(&'a [u8]) }

        impl<'a> Method<'a> {
            /// The method that `token` names.
            #[must_use]
            pub fn of(token: &'a [u8]) -> Method<'a> {
                $(if token == $text.as_bytes() { return Method::$variant; })*
                Method::Other(token)
            }

            /// The token on the wire.
            #[must_use]
            pub fn as_bytes(&self) -> &'a [u8] {
                match self { $(Method::$variant => $text.as_bytes(),)* Method::Other(token) => token }
            }

            /// The same method free of the message, or None for an unknown one.
            #[must_use]
            pub const fn known(self) -> Option<Method<'static>> {
                match self { $(Method::$variant => Some(Method::$variant),)* Method::Other(_) => None }
            }
        }
    };
}

methods! {
    Invite = "INVITE";
    Ack = "ACK";
    Bye = "BYE";
    Cancel = "CANCEL";
    Options = "OPTIONS";
    Register = "REGISTER";
    Info = "INFO";
    Update = "UPDATE";
    Prack = "PRACK";
    Subscribe = "SUBSCRIBE";
    Notify = "NOTIFY";
    Refer = "REFER";
    Message = "MESSAGE";
    Publish = "PUBLISH";
}

impl Method<'_> {
    /// Whether a request of this method outside a dialog can make one (RFC 3261, 3515, 6665), so that responses
    /// copy Record-Route.
    #[must_use]
    pub const fn forms_dialog(&self) -> bool {
        matches!(self, Method::Invite | Method::Subscribe | Method::Refer | Method::Notify)
    }
}

impl fmt::Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}
