//! Where packets would go, and what servers of mode dsr need.

use axum::{Json, http::StatusCode};

use super::{
    answer::Text,
    ask::{Ask, Nothing},
    context::ApiContext,
};
use crate::{
    admin::{
        lookup, packets,
        views::{self, ExplainQuery, Problem, ScriptQuery},
    },
    base::{ClientAddr, ListenAddr},
    flow::FiveTuple,
};

/// Where packets of a 5-tuple would go.
pub async fn explain(
    context: ApiContext,
    ask: Ask<Nothing, ExplainQuery>,
) -> Result<Json<views::Explanation>, Problem> {
    let query = ask.query;
    let tuple = FiveTuple {
        protocol: query.protocol,
        client: ClientAddr(query.client),
        vip: ListenAddr::new(query.vip),
    };
    if query.client.is_ipv4() != query.vip.is_ipv4() {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "client and vip must both be IPv4 or both IPv6",
        ));
    }
    let status = context.now();
    let found = context.live().explain(&tuple);
    let asks = packets::Asks {
        sni: query
            .sni
            .map(|sni| sni.trim_end_matches('.').to_ascii_lowercase()),
        alpn: query.alpn.iter().flat_map(|list| list.split(',')).collect(),
    };
    Ok(Json(packets::explanation(
        &status.snapshot,
        &tuple,
        &asks,
        found,
        &status.waiting,
    )))
}

/// What to run on a server of mode dsr.
pub async fn backend_script(context: ApiContext, ask: Ask<Nothing, ScriptQuery>) -> Result<Text, Problem> {
    let ScriptQuery { frontend, server } = ask.query;
    let status = context.now();
    let view = lookup::find_frontend(&status.snapshot, &frontend)?;
    let script = context.live().backend_script(view, &server);
    script
        .map(Text)
        .map_err(|why| Problem::new(StatusCode::NOT_FOUND, why))
}
