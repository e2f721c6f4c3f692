//! The watched objects as plain data.
//!
//! [`crate::files`] fills a [`ClusterView`] from a folder; reflectors of an API server can fill the
//! same one. [`crate::translate`] only reads it. Objects are shared and the maps are persistent, so a
//! copy costs nothing and two views are compared by what they do not share. Nothing here judges an
//! object: what is in the view may still be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crds::{
    AIService, BackendLBPolicy, DirectResponse, RoutePolicy, SecurityPolicy, ServiceImport,
    TokenPolicy, WasmPlugin,
};
use gateway_api::backendtlspolicies::BackendTlsPolicy;
use gateway_api::experimental::gatewayclasses::GatewayClass;
use gateway_api::experimental::gateways::Gateway;
use gateway_api::experimental::grpcroutes::GrpcRoute;
use gateway_api::experimental::httproutes::HttpRoute;
use gateway_api::experimental::listenersets::ListenerSet;
use gateway_api::experimental::referencegrants::ReferenceGrant;
use gateway_api::experimental::tcproutes::TcpRoute;
use gateway_api::experimental::tlsroutes::TlsRoute;
use gateway_api::experimental::udproutes::UdpRoute;
use gateway_api::experimental::xbackendtrafficpolicies::XBackendTrafficPolicy;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ir::resource::Shared;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

macro_rules! watched_kinds {
    ($($(#[$doc:meta])* $field:ident: $variant:ident, $type:ty, $name:literal;)*) => {
        /// Every watched object, by kind and key. Cheap to clone.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct ClusterView {
            $($(#[$doc])* pub $field: Objects<$type>,)*
            /// Of Secrets whose certificate was broken by an edit: the last form that was whole, see
            /// [`crate::translate::keep_former_certificates`].
            pub former_secrets: Objects<Secret>,
        }

        impl ClusterView {
            /// Adds or replaces an object; gives back the one that was there.
            pub fn insert(&mut self, object: AnyObject) -> Option<AnyObject> {
                match object {
                    $(AnyObject::$variant(object) => {
                        self.$field.insert(object).map(AnyObject::$variant)
                    })*
                }
            }

            /// Takes an object out.
            pub fn remove(&mut self, kind: Kind, key: &str) -> Option<AnyObject> {
                match kind {
                    $(Kind::$variant => self.$field.remove(key).map(AnyObject::$variant),)*
                }
            }

            /// The object of that kind and key.
            pub fn get(&self, kind: Kind, key: &str) -> Option<AnyObject> {
                match kind {
                    $(Kind::$variant => self.$field.get(key).cloned().map(AnyObject::$variant),)*
                }
            }

            /// Keys of all objects of a kind.
            pub fn keys(&self, kind: Kind) -> Vec<Arc<str>> {
                match kind {
                    $(Kind::$variant => self.$field.iter().map(|o| o.key.clone()).collect(),)*
                }
            }

            /// How many objects there are.
            pub fn len(&self) -> usize {
                0 $(+ self.$field.len())*
            }

            /// True when there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        /// The kinds that are watched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $variant,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The kind as it is written in a manifest.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        /// One object of any watched kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyObject {
            $($(#[$doc])* $variant(Arc<Object<$type>>),)*
        }

        impl AnyObject {
            /// What it is.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(_) => Kind::$variant,)*
                }
            }

            /// `namespace/name`, or the name alone where the kind has no namespace.
            pub fn key(&self) -> &Arc<str> {
                match self {
                    $(Self::$variant(object) => &object.key,)*
                }
            }

            /// Where it was read.
            pub fn origin(&self) -> &Origin {
                match self {
                    $(Self::$variant(object) => &object.origin,)*
                }
            }

            /// Its metadata.
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$variant(object) => object.value.metadata(),)*
                }
            }
        }

        $(
            impl Watched for $type {
                const KIND: Kind = Kind::$variant;

                fn metadata(&self) -> &ObjectMeta {
                    &self.metadata
                }

                fn metadata_mut(&mut self) -> &mut ObjectMeta {
                    &mut self.metadata
                }
            }

            impl From<Object<$type>> for AnyObject {
                fn from(object: Object<$type>) -> Self {
                    Self::$variant(Arc::new(object))
                }
            }
        )*
    };
}

watched_kinds! {
    /// Which controller serves which Gateways.
    gateway_classes: GatewayClass, GatewayClass, "GatewayClass";
    /// Where traffic comes in.
    gateways: Gateway, Gateway, "Gateway";
    /// Listeners kept apart from their Gateway.
    listener_sets: ListenerSet, ListenerSet, "ListenerSet";
    /// HTTP routes.
    http_routes: HttpRoute, HttpRoute, "HTTPRoute";
    /// gRPC routes.
    grpc_routes: GrpcRoute, GrpcRoute, "GRPCRoute";
    /// Routes by SNI.
    tls_routes: TlsRoute, TlsRoute, "TLSRoute";
    /// Routes for TCP.
    tcp_routes: TcpRoute, TcpRoute, "TCPRoute";
    /// Routes for UDP.
    udp_routes: UdpRoute, UdpRoute, "UDPRoute";
    /// Leave to refer into another namespace.
    reference_grants: ReferenceGrant, ReferenceGrant, "ReferenceGrant";
    /// TLS towards backends.
    backend_tls_policies: BackendTlsPolicy, BackendTlsPolicy, "BackendTLSPolicy";
    /// How requests are spread over endpoints, and how these are spared.
    backend_lb_policies: BackendLbPolicy, BackendLBPolicy, "BackendLBPolicy";
    /// The same as far as Gateway API has it.
    backend_traffic_policies: XBackendTrafficPolicy, XBackendTrafficPolicy, "XBackendTrafficPolicy";
    /// Settings of the data plane for routes.
    route_policies: RoutePolicy, RoutePolicy, "RoutePolicy";
    /// Who may come in, and how often.
    security_policies: SecurityPolicy, SecurityPolicy, "SecurityPolicy";
    /// Models behind providers.
    ai_services: AiService, AIService, "AIService";
    /// Budgets of tokens.
    token_policies: TokenPolicy, TokenPolicy, "TokenPolicy";
    /// Modules that see requests.
    wasm_plugins: WasmPlugin, WasmPlugin, "WasmPlugin";
    /// Answers without a backend.
    direct_responses: DirectResponse, DirectResponse, "DirectResponse";
    /// Backends.
    services: Service, Service, "Service";
    /// Backends that several clusters offer together.
    service_imports: ServiceImport, ServiceImport, "ServiceImport";
    /// Addresses of backends.
    endpoint_slices: EndpointSlice, EndpointSlice, "EndpointSlice";
    /// Certificates and other key material.
    secrets: Secret, Secret, "Secret";
    /// Certificate authorities and other settings.
    config_maps: ConfigMap, ConfigMap, "ConfigMap";
    /// Whose address is whose, for the mesh; of each the addresses alone.
    pods: Pod, Pod, "Pod";
    /// Labels that listeners select namespaces by.
    namespaces: Namespace, Namespace, "Namespace";
}

impl ClusterView {
    /// Labels of a namespace; every namespace has its name as one.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let object = self.namespaces.get(namespace);
        let mut labels = object
            .and_then(|object| object.value.metadata.labels.clone())
            .unwrap_or_default();
        let name = "kubernetes.io/metadata.name".to_owned();
        labels.entry(name).or_insert_with(|| namespace.to_owned());
        labels
    }
}

impl Kind {
    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A type that is watched.
pub trait Watched: Clone + PartialEq {
    /// Its kind.
    const KIND: Kind;
    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Its metadata, to be changed while the object is read.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
}

/// One object, its key, and where it was read.
#[derive(Clone, PartialEq)]
pub struct Object<T> {
    /// `namespace/name`, or the name alone where the kind has no namespace.
    pub key: Arc<str>,
    /// The object as written.
    pub value: T,
    /// Where it was read.
    pub origin: Origin,
}

impl<T: Watched> Object<T> {
    /// Takes the key from the metadata.
    pub fn new(value: T, origin: Origin) -> Self {
        let metadata = value.metadata();
        let name = metadata.name.as_deref().unwrap_or_default();
        let key = match &metadata.namespace {
            Some(namespace) => format!("{namespace}/{name}").into(),
            None => name.into(),
        };
        Self { key, value, origin }
    }

    /// Its namespace; empty where the kind has none.
    pub fn namespace(&self) -> &str {
        self.value
            .metadata()
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.value.metadata().name.as_deref().unwrap_or_default()
    }

    /// The generation conditions are about; 0 for an object that never met an API server.
    pub fn generation(&self) -> i64 {
        self.value.metadata().generation.unwrap_or_default()
    }

    /// When it was created, when that is known.
    pub fn created_at(&self) -> Option<SystemTime> {
        let stamp = self.value.metadata().creation_timestamp.as_ref()?;
        Some(SystemTime::from(stamp.0))
    }

    /// `Kind namespace/name`, as messages name it.
    pub fn title(&self) -> String {
        format!("{} {}", T::KIND, self.key)
    }
}

/// Shows the key only, because a Secret must not be seen.
impl<T> fmt::Debug for Object<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key, self.origin)
    }
}

/// Where an object was read: a file and the line its document starts at.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file, as an operator would name it; empty for an API server.
    pub file: Arc<str>,
    /// First line of the document, from 1.
    pub line: usize,
}

impl Origin {
    /// True for an object that an API server holds.
    pub fn is_api_server(&self) -> bool {
        self.file.is_empty()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_api_server() {
            f.write_str("API server")
        } else if self.line > 1 {
            write!(f, "{}:{}", self.file, self.line)
        } else {
            f.write_str(&self.file)
        }
    }
}

/// All objects of one kind by key, in a persistent map.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects<T>(OrdMap<Arc<str>, Shared<Object<T>>>);

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<T: Watched> Objects<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The object of that key.
    pub fn get(&self, key: &str) -> Option<&Arc<Object<T>>> {
        self.0.get(key).map(|shared| &shared.0)
    }

    /// Adds or replaces; gives back the one that was there.
    pub fn insert(&mut self, object: impl Into<Arc<Object<T>>>) -> Option<Arc<Object<T>>> {
        let object = object.into();
        let former = self.0.insert(object.key.clone(), Shared(object));
        former.map(|shared| shared.0)
    }

    /// Takes one out.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Object<T>>> {
        self.0.remove(key).map(|shared| shared.0)
    }

    /// All of them in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object<T>>> {
        self.0.values().map(|shared| &shared.0)
    }

    /// True when both share the same tree, which means equal without looking.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }

    /// What differs in `next`: each key with the old and the new object, where there is one.
    ///
    /// Walks only the parts that are not shared; an object that is equal counts as the same.
    pub fn changes<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = ObjectChange<'a, T>> {
        self.0.diff(&next.0).map(|item| match item {
            DiffItem::Add(_, new) => (None, Some(&new.0)),
            // The map has compared them.
            DiffItem::Update {
                old: (_, old),
                new: (_, new),
            } => (Some(&old.0), Some(&new.0)),
            DiffItem::Remove(_, old) => (Some(&old.0), None),
        })
    }
}

/// The old and the new state of one object that differs; at least one is there.
pub type ObjectChange<'a, T> = (Option<&'a Arc<Object<T>>>, Option<&'a Arc<Object<T>>>);

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(name: &str, text: &str) -> AnyObject {
        let value = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("shop".to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(
                "tls.key".to_owned(),
                ByteString(text.into()),
            )])),
            ..Secret::default()
        };
        Object::new(
            value,
            Origin {
                file: "a.yaml".into(),
                line: 7,
            },
        )
        .into()
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut view = ClusterView::default();
        view.insert(secret("key", "hush-hush"));
        let text = format!("{view:?}");
        assert!(text.contains("shop/key (a.yaml:7)"), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }

    #[test]
    fn changes_name_what_differs_and_nothing_else() {
        let mut before = ClusterView::default();
        before.insert(secret("a", "1"));
        before.insert(secret("b", "1"));
        before.insert(secret("c", "1"));
        let mut after = before.clone();
        after.insert(secret("a", "1"));
        after.insert(secret("b", "2"));
        after.remove(Kind::Secret, "shop/c");
        after.insert(secret("d", "1"));

        let changed: Vec<_> = before
            .secrets
            .changes(&after.secrets)
            .map(|(old, new)| (old.map(|o| &*o.key), new.map(|o| &*o.key)))
            .collect();
        assert_eq!(
            changed,
            [
                (Some("shop/b"), Some("shop/b")),
                (Some("shop/c"), None),
                (None, Some("shop/d")),
            ]
        );
    }
}
