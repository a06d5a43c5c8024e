//! A call to OfficeRnD, and what it brings.

use std::rc::Rc;
use std::time::Duration;

use super::flight::UpstreamCall;
use super::instance::Broker;
use super::ports::{Ports, SendError};
use super::wanted::Wanted;
use crate::config::application;
use crate::error::{Cause, Error};
use crate::gate::Reservation;
use crate::time::Timestamp;
use crate::token::{LEAST_REMAINING, Token};
use crate::upstream::{self, ANSWER_LIMIT, Failure};

impl<P: Ports> Broker<P> {
    /// Calls OfficeRnD, within `limit`.
    pub(super) async fn call(
        &self,
        wanted: &Wanted,
        limit: Duration,
    ) -> (Result<upstream::Grant, Failure>, UpstreamCall) {
        let Wanted { config, application, credential, scopes, .. } = wanted;
        let request = upstream::token_request(&config.identity, application, credential, scopes);
        let started = self.ports.now();
        let answer = self.within(limit, self.ports.send(request, ANSWER_LIMIT)).await;
        let now = self.ports.now();
        let status = match &answer {
            Some(Ok(answer)) => Some(answer.status().as_u16()),
            _ => None,
        };
        let grant = match answer {
            Some(Ok(answer)) => {
                upstream::read_answer(answer.status(), answer.headers(), answer.body(), &wanted.scopes, now)
            }
            Some(Err(SendError::TooLong)) => Err(Failure::Unavailable(Cause::AnswerTooLong, None)),
            Some(Err(SendError::Unreachable)) => Err(Failure::Unavailable(Cause::Unreachable, None)),
            None => Err(Failure::Unavailable(Cause::TimedOut, None)),
        };
        let ms = now.since(started).as_millis().try_into().unwrap_or(u64::MAX);
        (grant, UpstreamCall { status, ms })
    }

    /// Stores and remembers a grant, or that OfficeRnD does not grant these scopes.
    ///
    /// # Errors
    /// The failure; within a success, that the token has too little life to be handed out.
    pub(super) async fn keep_answer(
        &self,
        wanted: &Wanted,
        answer: Result<upstream::Grant, Failure>,
        started: Timestamp,
        ended: Timestamp,
    ) -> Result<Result<Rc<Token>, Error>, Failure> {
        match answer {
            Ok(grant) => Ok(self.keep_grant(wanted, grant, started, ended).await),
            Err(failure) => {
                let application = &wanted.application.name;
                self.ports.warn(&format!("OfficeRnD issued no token of {application}: {}", failure.reason()));
                if failure == Failure::ScopeNotGranted {
                    self.keep_refusal(wanted, ended).await;
                }
                Err(failure)
            }
        }
    }

    /// Stores and remembers what OfficeRnD granted between `started` and `now`.
    ///
    /// # Errors
    /// When it has too little life to be handed out.
    async fn keep_grant(
        &self,
        wanted: &Wanted,
        grant: upstream::Grant,
        started: Timestamp,
        now: Timestamp,
    ) -> Result<Rc<Token>, Error> {
        let mut token = Token {
            access_token: grant.access_token,
            requested: wanted.scopes.clone(),
            scopes: grant.scopes,
            expires_at: started + grant.expires_in,
            fetched_at: now,
            stalled: false,
            revoked_at: None,
        };
        // Asked anew: it may have been revoked meanwhile.
        if let (Some(previous), _) = self.load(wanted).await {
            if previous.expires_at >= token.expires_at {
                token = Token { fetched_at: now, stalled: true, ..Token::clone(&previous) };
            } else if previous.access_token.expose() == token.access_token.expose() {
                token.stalled = true;
            }
            token.revoked_at = previous.revoked_at;
        }
        let lives = token.remaining(now) >= LEAST_REMAINING;
        token.stalled |= !lives;
        let token = Rc::new(token);
        // Before the write: a request that comes meanwhile is served.
        self.instance.remember(wanted, now, Some(token.clone()), true);
        let _ = self.save(wanted, &token).await;
        if lives { Ok(token) } else { Err(Error::unavailable(Cause::TokenExpiring, token.next_fetch(now).since(now))) }
    }

    /// Writes down how a reserved call ended, and says what whoever wanted it is told.
    pub(super) async fn settle(
        &self,
        wanted: &Wanted,
        reservation: Reservation,
        kept: &Result<Result<Rc<Token>, Error>, Failure>,
        ended: Timestamp,
        has_lease: bool,
    ) -> Result<Rc<Token>, Error> {
        if has_lease {
            let _ = self.load_ledger().await;
        }
        let random = self.ports.random();
        let credential = &wanted.credential.fingerprint;
        let token = self.instance.update_ledger(|ledger| match kept {
            Ok(kept) => {
                ledger.settle_success(reservation, ended, credential);
                kept.clone()
            }
            Err(failure) => Err(ledger.settle_failure(reservation, ended, *failure, credential, random)),
        });
        if has_lease {
            self.store_ledger().await;
            if let Ok(token) = &token {
                self.note_in_index(token.access_token.expose(), wanted.key()).await;
            }
        }
        token
    }

    /// Tells the operator that an application's next secret is the one that works.
    pub(super) fn advise_to_swap_secrets(&self, application: &str) {
        let (variable, place) = match application {
            application::DEFAULT => ("officernd_", String::new()),
            name => ("", format!("applications: {name}: ")),
        };
        self.ports.warn(&format!(
            "{place}OfficeRnD refuses {variable}client_secret and takes {variable}client_secret_next: swap the two, and \
             remove the old one after an hour",
        ));
    }
}
