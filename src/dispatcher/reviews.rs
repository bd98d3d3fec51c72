//! Asks the API server who a sender is, and what they may.
//!
//! What was asked holds a token, and so does a TokenReview that comes back. Neither reaches a log: `kube` logs an
//! answer that it cannot read, so it is read here.

use http::{Method, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo},
    authorization::v1::{
        ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
    },
};
use kube::{Api, Client, client::Body};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    ingest::{
        Target,
        access::{GROUP, RESOURCE, Reviewer, Right, Unavailable, User},
    },
    limits,
};

/// Reviews by the API server.
pub struct Reviews {
    client: Client,
    audience: String,
}

/// A review as it comes back: what it found.
#[derive(Deserialize)]
struct Reviewed<S> {
    status: S,
}

impl Reviews {
    /// For tokens that are for this audience.
    pub fn new(client: Client, audience: String) -> Self {
        Self { client, audience }
    }

    async fn ask<K, S>(&self, review: &K) -> Result<S, Unavailable>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Serialize,
        S: DeserializeOwned,
    {
        let kind = K::kind(&());
        let away = |what: String| Unavailable::Away(format!("{kind}: {what}"));
        let path = Api::<K>::all(self.client.clone()).resource_url().to_owned();
        let body = serde_json::to_vec(review).map_err(|_| away("it cannot be written".to_owned()))?;
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request.header(CONTENT_TYPE, "application/json").body(Body::from(body));
        let request = request.map_err(|error| away(error.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| away(error.to_string()))?;
        let status = response.status();
        if !status.is_success() {
            return Err(away(format!("HTTP {status}; has the dispatcher the right to create it?")));
        }
        let body = Limited::new(response.into_body(), limits::REVIEW_BYTES).collect().await;
        let body = body.map_err(|_| away("its answer broke off".to_owned()))?.to_bytes();
        let reviewed: Reviewed<S> =
            serde_json::from_slice(&body).map_err(|_| away("its answer is none".to_owned()))?;
        Ok(reviewed.status)
    }
}

impl Reviewer for Reviews {
    async fn whose(&self, token: &str) -> Result<Option<User>, Unavailable> {
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: token.to_owned() };
        let status: TokenReviewStatus = self.ask(&TokenReview { spec, ..TokenReview::default() }).await?;
        // An authenticator that knows nothing of audiences says none: that is a token for the API server.
        let for_us = status.audiences.is_some_and(|audiences| audiences.contains(&self.audience));
        let user = status.user.filter(|_| status.authenticated == Some(true) && for_us);
        Ok(user.and_then(user_of))
    }

    async fn may(&self, user: &User, right: &Right) -> Result<bool, Unavailable> {
        let User { name, uid, groups, extra } = user.clone();
        let Right { verb, subresource, target: Target { namespace, name: webhook } } = right.clone();
        let attributes = ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some(RESOURCE.to_owned()),
            subresource: Some(subresource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(namespace),
            name: webhook,
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(name),
            uid,
            groups,
            extra,
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let status: SubjectAccessReviewStatus =
            self.ask(&SubjectAccessReview { spec, ..SubjectAccessReview::default() }).await?;
        Ok(status.allowed && status.denied != Some(true))
    }
}

/// A user without a name is nobody.
fn user_of(user: UserInfo) -> Option<User> {
    let UserInfo { username, uid, groups, extra } = user;
    let name = username.filter(|name| !name.is_empty())?;
    Some(User { name, uid, groups, extra })
}
