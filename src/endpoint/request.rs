//! Parses a client's request by RFC 6749: a form (appendix B), with credentials in the header
//! or in the form (section 2.3.1).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Request};

use crate::assertion;
use crate::config::caller::Unauthenticated;
use crate::error::Error;
use crate::secret::PresentedSecret;

/// Longest accepted request body, in bytes.
pub const BODY_LIMIT: usize = 16 * 1024;

/// A request body, as a port read it.
pub type Body = Result<Vec<u8>, BodyError>;

/// Why a port could not read the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It exceeds [`BODY_LIMIT`].
    TooLarge,
    /// It broke off, or took too long.
    Incomplete,
}

/// Media type of a form, RFC 6749 appendix B.
const FORM: &str = "application/x-www-form-urlencoded";

/// A parsed request of a client. Nothing in it has been verified.
pub(super) struct ClientRequest<'a> {
    /// Credentials that the client presents, or why it presents none.
    pub(super) credentials: Result<Credentials, Unauthenticated>,
    pub(super) grant_type: Option<Cow<'a, str>>,
    pub(super) scope: Option<Cow<'a, str>>,
    /// Token to revoke (RFC 7009 section 2.1). The parameter `token_type_hint` is ignored.
    pub(super) token: Option<PresentedSecret>,
}

/// What a client presents to authenticate.
pub(super) enum Credentials {
    Secret(IdAndSecret),
    /// An assertion (RFC 7521 section 4.2), whose subject `client_id` repeats if it is there.
    Assertion {
        client_id: Option<String>,
        assertion: PresentedSecret,
    },
}

/// Id and secret that a client presents.
pub(super) struct IdAndSecret {
    pub(super) id: String,
    pub(super) secret: PresentedSecret,
}

/// Type of the assertions that the broker accepts (RFC 7523 section 2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The form parameters that the broker reads. RFC 6749 section 3.2: one without a value counts
/// as absent, unknown ones are ignored, and none may be repeated.
#[derive(Default)]
struct Form<'a> {
    grant_type: Option<Cow<'a, str>>,
    scope: Option<Cow<'a, str>>,
    client_id: Option<Cow<'a, str>>,
    client_secret: Option<Cow<'a, str>>,
    client_assertion_type: Option<Cow<'a, str>>,
    client_assertion: Option<Cow<'a, str>>,
    token: Option<Cow<'a, str>>,
}

impl<'a> Form<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(bytes) {
            let Some(place) = form.place(&name) else { continue };
            if !value.is_empty() && place.replace(value).is_some() {
                return Err(Error::InvalidRequest("a parameter is repeated"));
            }
        }
        Ok(form)
    }

    fn place(&mut self, name: &str) -> Option<&mut Option<Cow<'a, str>>> {
        match name {
            "grant_type" => Some(&mut self.grant_type),
            "scope" => Some(&mut self.scope),
            "client_id" => Some(&mut self.client_id),
            "client_secret" => Some(&mut self.client_secret),
            "client_assertion_type" => Some(&mut self.client_assertion_type),
            "client_assertion" => Some(&mut self.client_assertion),
            "token" => Some(&mut self.token),
            _ => None,
        }
    }
}

impl<'a> ClientRequest<'a> {
    /// Whether the client authenticates by an assertion, whose keys may have to be fetched.
    pub(super) fn has_assertion(&self) -> bool {
        matches!(self.credentials, Ok(Credentials::Assertion { .. }))
    }

    pub(super) fn parse(request: &'a Request<Body>) -> Result<Self, Error> {
        if has_parameter_in_query(request) {
            return Err(Error::InvalidRequest("parameters must be in the body, not in the query"));
        }
        let body = request.body().as_ref().map_err(|error| match error {
            BodyError::TooLarge => Error::BodyTooLarge,
            BodyError::Incomplete => Error::InvalidRequest("the request body is incomplete"),
        })?;
        if !is_form(request.headers().get(CONTENT_TYPE)) {
            return Err(Error::InvalidRequest("the body must be application/x-www-form-urlencoded"));
        }
        let form = Form::parse(body)?;
        let credentials = credentials(request.headers(), &form)?;
        Ok(Self {
            credentials,
            grant_type: form.grant_type,
            scope: form.scope,
            token: form.token.map(PresentedSecret::new),
        })
    }
}

/// The credentials of a request without a body: HTTP Basic, or an assertion as a bearer token (RFC 6750
/// section 2.1).
pub(super) fn credentials_of_header(request: &Request<Body>) -> Result<Result<Credentials, Unauthenticated>, Error> {
    if has_parameter_in_query(request) {
        return Err(Error::InvalidRequest("credentials must be in the Authorization header, not in the query"));
    }
    let credentials = credentials(request.headers(), &Form::default())?;
    Ok(credentials.or_else(|because| {
        let assertion = request.headers().get(AUTHORIZATION).and_then(bearer);
        assertion.map(|assertion| Credentials::Assertion { client_id: None, assertion }).ok_or(because)
    }))
}

/// Parses a bearer token (RFC 6750 section 2.1).
fn bearer(authorization: &HeaderValue) -> Option<PresentedSecret> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| PresentedSecret::new(token.trim()))
}

/// RFC 6749 section 2.3.1: no parameter is ever in the URI, because logs would keep it.
fn has_parameter_in_query(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| !value.is_empty() && Form::default().place(&name).is_some())
}

/// Whether this is the media type of a form, with or without parameters (RFC 9110 section
/// 8.3.1).
fn is_form(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(FORM)
}

/// The credentials (RFC 6749 section 2.3). Some clients present the same ones in both ways, and
/// some send an empty header; different ones are refused.
fn credentials(headers: &HeaderMap, form: &Form<'_>) -> Result<Result<Credentials, Unauthenticated>, Error> {
    let mut authorizations = headers.get_all(AUTHORIZATION).iter().filter(|value| !value.is_empty());
    let authorization = authorizations.next();
    if authorizations.next().is_some() {
        return Err(Error::InvalidRequest("more than one Authorization header"));
    }
    if form.client_assertion_type.is_some() || form.client_assertion.is_some() {
        return by_assertion(authorization.is_some(), form);
    }
    let Some(authorization) = authorization else {
        return Ok(match (&form.client_id, &form.client_secret) {
            (Some(id), Some(secret)) => {
                let (id, secret) = (id.clone().into_owned(), PresentedSecret::new(secret.clone()));
                Ok(Credentials::Secret(IdAndSecret { id, secret }))
            }
            _ => Err(Unauthenticated::NoCredentials),
        });
    };
    let Some(credentials) = basic(authorization) else {
        return match form.client_secret {
            Some(_) => Err(Error::InvalidRequest("more than one way of authenticating")),
            None => Ok(Err(Unauthenticated::UnreadableCredentials)),
        };
    };
    // Many clients repeat their id in the body. It authenticates nothing, but must be the same
    // one.
    if form.client_id.as_ref().is_some_and(|id| *id != credentials.id) {
        return Err(Error::InvalidRequest("client_id differs from the authenticated one"));
    }
    if form.client_secret.as_ref().is_some_and(|secret| *secret != credentials.secret.expose()) {
        return Err(Error::InvalidRequest("client_secret differs from the one in the Authorization header"));
    }
    Ok(Ok(Credentials::Secret(credentials)))
}

/// An assertion in the form. RFC 6749 section 2.3: a request authenticates in one way only.
fn by_assertion(has_authorization: bool, form: &Form<'_>) -> Result<Result<Credentials, Unauthenticated>, Error> {
    if has_authorization || form.client_secret.is_some() {
        return Err(Error::InvalidRequest("more than one way of authenticating"));
    }
    let (Some(kind), Some(assertion)) = (&form.client_assertion_type, &form.client_assertion) else {
        return Err(Error::InvalidRequest("client_assertion and client_assertion_type belong together"));
    };
    if kind != JWT_BEARER {
        return Ok(Err(assertion::Reason::Type.into()));
    }
    let client_id = form.client_id.clone().map(Cow::into_owned);
    Ok(Ok(Credentials::Assertion { client_id, assertion: PresentedSecret::new(assertion.clone()) }))
}

/// Parses HTTP Basic (RFC 7617). Id and secret are form-encoded before they are joined (RFC
/// 6749 section 2.3.1).
fn basic(authorization: &HeaderValue) -> Option<IdAndSecret> {
    let (scheme, encoded) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some(IdAndSecret { id: form_decode(id)?, secret: PresentedSecret::new(form_decode(secret)?) })
}

fn form_decode(text: &str) -> Option<String> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_form_decoded_after_base64() {
        let check = |header: &str, expected: Option<(&str, &str)>| {
            let found = basic(&HeaderValue::from_str(header).unwrap());
            let found = found.as_ref().map(|found| (found.id.as_str(), found.secret.expose()));
            assert_eq!(found, expected, "{header}");
        };
        let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text.as_bytes()));
        check(&encoded("id:secret"), Some(("id", "secret")));
        check(&encoded("id:se:cret"), Some(("id", "se:cret")));
        check(&encoded("i%3Ad:s%2Bx+y"), Some(("i:d", "s+x y")));
        check(&encoded("id:caf%C3%A9"), Some(("id", "caf\u{e9}")));
        check(&encoded(":"), Some(("", "")));
        check(&encoded("id:secret").replace("Basic", "bAsIc"), Some(("id", "secret")));
        check(&encoded("id"), None);
        check(&encoded("id:%FF"), None);
        check("Basic", None);
        check("Basic !!!", None);
        check("Basic aWQ6/w==", None);
        check("Bearer aWQ6c2VjcmV0", None);
        check(&format!("Basic {}", STANDARD.encode(b"id:\xFF")), None);
    }

    #[test]
    fn content_type_of_a_form_is_recognised() {
        let check = |value: &str, expected: bool| {
            assert_eq!(is_form(Some(&HeaderValue::from_str(value).unwrap())), expected, "{value}");
        };
        check("application/x-www-form-urlencoded", true);
        check("application/x-www-form-urlencoded; charset=UTF-8", true);
        check("Application/X-WWW-Form-Urlencoded ;charset=utf-8", true);
        check("application/json", false);
        check("application/x-www-form-urlencoded-not", false);
        check("multipart/form-data; boundary=x", false);
        assert!(!is_form(None));
    }

    #[test]
    fn repeated_form_parameter_is_refused() {
        let check = |body: &str, expected: Result<Option<&str>, ()>| {
            let found = Form::parse(body.as_bytes());
            let found = found.as_ref().map(|form| form.scope.as_deref()).map_err(|_| ());
            assert_eq!(found, expected, "{body}");
        };
        check("scope=a", Ok(Some("a")));
        check("scope=", Ok(None));
        check("scope", Ok(None));
        check("", Ok(None));
        check("scope=a+b%20c", Ok(Some("a b c")));
        check("s%63ope=a", Ok(Some("a")));
        check("scope=&scope=a", Ok(Some("a")));
        check("resource=a&resource=b&scope=a", Ok(Some("a")));
        check("scope=a&scope=a", Err(()));
        check("scope=a&sc%6Fpe=b", Err(()));
    }
}
