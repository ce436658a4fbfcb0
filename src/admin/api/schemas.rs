//! The forms of what the views are made of.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    admin::views::{WantedClient, Word},
    base::{
        BackendName, ClientAddr, FrontendName, ListenAddr, ListenPlace, ListenRange, Remote, ServerAddr,
        ServerName,
    },
};

/// Types that are a text in JSON.
macro_rules! texts {
    ($($type:ty: $name:literal, $description:literal;)*) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description })
            }
        }
    )*};
}

texts! {
    BackendName: "BackendName", "Name of a backend.";
    FrontendName: "FrontendName", "Name of a frontend.";
    ServerName: "ServerName", "Name of a server.";
    ServerAddr: "ServerAddr", "Address and port of a server, or the path of its unix socket.";
    ClientAddr: "ClientAddr", "Address and port of a client.";
    ListenAddr: "ListenAddr", "Address and port of a frontend.";
    ListenPlace: "ListenPlace", "Address and port of a frontend, or the path of its unix socket.";
    ListenRange: "ListenRange", "Address and ports of a frontend.";
    Remote<ClientAddr>: "Client", "Address and port of a client, or `unix`.";
    WantedClient: "WantedClient", "An IP address, or one with a port.";
}

/// A newer daemon may have more words than the document of an older one, so they are not listed.
impl<T> JsonSchema for Word<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
