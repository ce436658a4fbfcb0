//! The table of handlers, from which both the router and the OpenAPI document are made.

use std::{any::type_name, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::map_response,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, get, on},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{
    answer::Answer,
    ask::{self, Ask, Body},
    context::ApiContext,
    openapi::{Document, Method, Operation},
};
use crate::{
    admin::{caller::permit, http, views::Problem},
    base::Role,
};

/// The handlers by method and path.
#[derive(Debug, Default)]
pub struct Table {
    routes: Router<ApiContext>,
    document: Document,
}

impl Table {
    /// Adds a handler: its path, who may ask, and what it does in a few words.
    pub fn add<H, F, P, Q, B, A>(
        mut self,
        (method, path): (Method, &'static str),
        needed: Role,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Fn(ApiContext, Ask<P, Q, B>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<A, Problem>> + Send,
        P: DeserializeOwned + JsonSchema + Send + 'static,
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: Body,
        A: Answer,
    {
        self.document.add::<P, Q, B, A>(&Operation {
            method,
            path,
            needed,
            summary,
            id: name_of::<H>(),
        });
        let serve = move |State(control): State<ApiContext>, request: Request| async move {
            let answer = async {
                permit(request.extensions().get(), needed)?;
                let ask = ask::read(request, control.limits().body).await?;
                handler(control, ask).await
            };
            match answer.await {
                Ok(answer) => answer.into_response(),
                Err(problem) => problem.into_response(),
            }
        };
        self.routes = self.routes.route(path, on(filter(method), serve));
        self
    }

    /// The paths.
    #[cfg(test)]
    pub fn paths(&self) -> Vec<String> {
        self.document.paths()
    }

    /// The router, which serves the document too. No browser and no proxy keeps an answer.
    pub fn finish(self, control: ApiContext) -> Router {
        let document = Arc::new(self.document.finish());
        let serve = move || {
            let document = Arc::clone(&document);
            async move { Json(document) }
        };
        self.routes
            .route("/v1/openapi.json", get(serve))
            .fallback(http::not_found)
            .method_not_allowed_fallback(http::method_not_allowed)
            .layer(map_response(async |mut response: Response| {
                let headers = response.headers_mut();
                headers
                    .entry(CACHE_CONTROL)
                    .or_insert(HeaderValue::from_static("no-store"));
                headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                response
            }))
            .with_state(control)
    }
}

/// The last part of a function's path.
fn name_of<H>() -> &'static str {
    let path = type_name::<H>();
    path.rsplit("::").next().unwrap_or(path)
}

const fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}
