//! An order from its beginning to the certificate, or to the reason why there is none.

use std::{future::Future, sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Identifier,
    NewOrder, Order, OrderStatus,
};
use tokio::time::{sleep, timeout};

use super::{
    Host, account,
    account::account_file,
    advice::CertificateId,
    certificate::{Bundle, request},
    failure::{Failure, FailureKind, is_replaced_already, is_unauthorized, is_unknown_account},
    proofs::{Proofs, Shown},
    transport::Transport,
};
use crate::{
    base::{Digest, DnsChange, DnsProof, HostName},
    config::{Acme, CertificateOrder, Challenge, Command},
};

/// How long an order may take, besides what a command takes that changes the DNS.
const LONGEST: Duration = Duration::from_secs(600);

/// How long after the first look at an order the CA is asked again, and how long at most if it does not say so itself.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Longest time between two looks, whatever the CA says: it may have decided.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// What is ordered, of whom, and with what.
#[derive(Debug, Clone)]
pub struct Job {
    /// The CA.
    pub acme: Acme,
    /// The certificate.
    pub order: CertificateOrder,
    /// The account as it is kept.
    pub account: Option<String>,
    /// The certificate that is renewed, if the CA knows of that.
    pub replaces: Option<CertificateId>,
}

/// What is needed for it.
#[derive(Clone)]
pub struct Means {
    /// The rest of the process.
    pub host: Arc<dyn Host>,
    /// Where proofs are shown.
    pub proofs: Proofs,
}

/// Has a certificate issued. What it has put into the DNS is removed whatever comes of it.
///
/// # Errors
/// There is none, and why; or `given_up` was first.
pub async fn carry_out(
    job: &Job,
    means: &Means,
    given_up: impl Future<Output = ()>,
) -> Result<Bundle, Failure> {
    let mut records = Records::default();
    let longest = LONGEST + job.acme.dns_wait + of_hook(&job.acme, job.order.names.len());
    let result = tokio::select! {
        result = timeout(longest, ordered(job, means, &mut records)) => result.unwrap_or_else(|_| {
            Err(Failure::new(
                FailureKind::Silent,
                format!("the order has not come to an end within {} s", longest.as_secs()),
            ))
        }),
        () = given_up => Err(Failure::given_up()),
    };
    records.remove(&*means.host).await;
    result
}

/// The time that a command may take for so many names, there and back.
fn of_hook(acme: &Acme, names: usize) -> Duration {
    let hook = acme.dns_hook.as_ref().map_or(Duration::ZERO, |hook| hook.timeout);
    hook * u32::try_from(names).unwrap_or(u32::MAX).min(100)
}

/// What is in the DNS for the time of an order.
#[derive(Debug, Default)]
struct Records(Vec<(Command, DnsProof)>);

impl Records {
    async fn add(&mut self, hook: &Command, proof: DnsProof, host: &dyn Host) -> Result<(), Failure> {
        // noted first: one that fails may have done half of it
        self.0.push((hook.clone(), proof.clone()));
        let record = proof.record();
        let made = host.prove(hook.clone(), proof).await;
        made.map_err(|why| {
            Failure::new(
                FailureKind::Hook,
                format!("dns_hook present {record}: {}: {why}", hook.program()),
            )
        })
    }

    async fn remove(self, host: &dyn Host) {
        for (hook, proof) in self.0 {
            let proof = DnsProof {
                change: DnsChange::Cleanup,
                ..proof
            };
            let record = proof.record();
            if let Err(why) = host.prove(hook, proof).await {
                tracing::warn!(
                    event = "acme_cleanup_failed",
                    "acme: the TXT record {record} may still be in the DNS: dns_hook cleanup: {why}"
                );
            }
        }
    }
}

async fn ordered(job: &Job, means: &Means, records: &mut Records) -> Result<Bundle, Failure> {
    let transport = Transport::prepare(&job.acme, &*means.host).await?;
    let failed = |failure: Failure| {
        let rest = transport.rest();
        failure.after(rest)
    };
    let saved = job.account.as_deref();
    let account = account::open(&job.acme, saved, &transport, &*means.host)
        .await
        .map_err(failed)?;
    // what the CA said before is not about this
    transport.rested();
    let mut order = new_order(job, account, &transport, &*means.host)
        .await
        .map_err(failed)?;
    let shown = prove(job, &mut order, means, records).await.map_err(failed)?;
    transport.rested();
    settle(&mut order, &transport).await.map_err(failed)?;
    // the CA has looked
    drop(shown);
    let (key, csr) = request(&job.order)?;
    order
        .finalize_csr(&csr)
        .await
        .map_err(|error| failed(error.into()))?;
    let chain = chain(&mut order, &transport).await.map_err(failed)?;
    let profile = job.order.profile(&job.acme);
    Bundle::of_issued(&job.acme.directory.to_string(), profile, &job.order, &chain, &key)
}

/// Places the order; with a new account if the CA does not know ours.
async fn new_order(
    job: &Job,
    account: Account,
    transport: &Transport,
    host: &dyn Host,
) -> Result<Order, Failure> {
    let names: Vec<Identifier> = (job.order.names.iter())
        .map(|name| Identifier::Dns(name.to_string()))
        .collect();
    let wanted = |replaces: Option<&CertificateId>| {
        let mut order = NewOrder::new(&names);
        if let Some(profile) = job.order.profile(&job.acme) {
            order = order.profile(profile);
        }
        if let Some(id) = replaces {
            order = order.replaces(CertificateIdentifier {
                authority_key_identifier: id.authority.clone().into(),
                serial: id.serial.clone().into(),
            });
        }
        order
    };
    let mut replaces = job.replaces.as_ref();
    let mut account = account;
    let mut is_new = false;
    loop {
        match account.new_order(&wanted(replaces)).await {
            Ok(order) => return Ok(order),
            Err(error) if replaces.is_some() && is_replaced_already(&error) => replaces = None,
            Err(error) if !is_new && is_unknown_account(&error) => {
                tracing::warn!(
                    event = "acme_account_unknown",
                    "acme: {} does not know our account any more; another one is registered",
                    job.acme.directory_text()
                );
                (account, is_new) = (account::register(&job.acme, transport, host).await?, true);
            }
            Err(error) if is_unauthorized(&error) => {
                let failure = Failure::from(error);
                let file = account_file(&job.acme.directory);
                return Err(Failure {
                    kind: FailureKind::Account,
                    text: format!(
                        "{}; if the account was closed, remove acme/{file} in the state directory, and another one is registered",
                        failure.text
                    ),
                    ..failure
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows that the names are ours, and tells the CA to look.
async fn prove(
    job: &Job,
    order: &mut Order,
    means: &Means,
    records: &mut Records,
) -> Result<Vec<Shown>, Failure> {
    let challenge = job.order.challenge(&job.acme);
    let kind = match challenge {
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::Dns01 => ChallengeType::Dns01,
    };
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if matches!(authorization.status, AuthorizationStatus::Valid) {
            continue;
        }
        let Some(asked) = authorization.challenge(kind.clone()) else {
            return Err(Failure::new(
                FailureKind::Challenge,
                format!(
                    "the CA does not offer the challenge \"{}\" for a name",
                    challenge.label()
                ),
            ));
        };
        let answer = asked.key_authorization();
        let Identifier::Dns(name) = asked.identifier().identifier else {
            continue;
        };
        match challenge {
            Challenge::TlsAlpn01 => shown.push(means.proofs.show_by_tls(name, answer.digest().as_ref())?),
            Challenge::Http01 => shown.push(means.proofs.show_by_http(&asked.token, answer.as_str())),
            Challenge::Dns01 => {
                let Some(hook) = &job.acme.dns_hook else { continue };
                let (domain, digest) = (name.parse::<HostName>(), answer.dns_value().parse::<Digest>());
                let (Ok(domain), Ok(digest)) = (domain, digest) else {
                    return Err(Failure::new(
                        FailureKind::Malformed,
                        format!("the CA asks for a record of \"{name}\", which is no name of a host"),
                    ));
                };
                let proof = DnsProof {
                    change: DnsChange::Present,
                    domain,
                    digest,
                };
                records.add(hook, proof, &*means.host).await?;
            }
        }
    }
    if !records.0.is_empty() {
        sleep(job.acme.dns_wait).await;
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if matches!(authorization.status, AuthorizationStatus::Valid) {
            continue;
        }
        if let Some(mut asked) = authorization.challenge(kind.clone()) {
            asked.set_ready().await?;
        }
    }
    Ok(shown)
}

/// Waits until the CA has decided whether the names are ours.
async fn settle(order: &mut Order, transport: &Transport) -> Result<(), Failure> {
    let mut look = FIRST_LOOK;
    loop {
        let status = order.refresh().await?.status;
        match status {
            OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid => return Ok(()),
            OrderStatus::Invalid => return Err(refusal(order).await),
            OrderStatus::Pending => {}
        }
        sleep(next_look(&mut look, transport)).await;
    }
}

/// Waits until the certificate is there.
async fn chain(order: &mut Order, transport: &Transport) -> Result<String, Failure> {
    let mut look = FIRST_LOOK;
    loop {
        if let Some(chain) = order.certificate().await? {
            return Ok(chain);
        }
        sleep(next_look(&mut look, transport)).await;
    }
}

fn next_look(look: &mut Duration, transport: &Transport) -> Duration {
    let own = *look;
    *look = (own * 2).min(LAST_LOOK);
    let wanted = transport.rest();
    transport.rested();
    wanted.unwrap_or_default().min(LONGEST_LOOK).max(own)
}

/// Why the CA does not believe that a name is ours.
async fn refusal(order: &mut Order) -> Failure {
    let said = order.state().error.as_ref().map(Failure::of_problem);
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else {
            break;
        };
        if authorization.refresh().await.is_err() {
            break;
        }
        let name = match authorization.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            _ => String::new(),
        };
        let failed = (authorization.challenges.iter())
            .filter(|challenge| challenge.status == ChallengeStatus::Invalid)
            .find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = failed {
            let failure = Failure::of_problem(problem);
            return Failure::new(FailureKind::Challenge, format!("{name}: {}", failure.text));
        }
    }
    match said {
        Some(failure) => Failure {
            kind: FailureKind::Challenge,
            ..failure
        },
        None => Failure::new(
            FailureKind::Challenge,
            "the CA has found the order invalid, and does not say why",
        ),
    }
}
