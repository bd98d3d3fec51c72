//! A part of step one: the values behind `endpoint.headers`, `authorization` and `signature` become
//! [`Credentials`], or a problem that names the field, the Secret and the key, and never the value.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

use super::{
    Error, Problem,
    fetch::{Objects, key_not_found, secret_not_found, value},
};
use crate::{
    api::v1alpha1::{
        self, Authorization, Header, OutboundWebhook, Reason, SecretKeyRef, TokenEndpointAuthMethod,
    },
    credentials::{self, ClientCredentials, Credentials, InvalidHeader, SigningSecret, without_line_break},
    limits,
};

/// What the webhook asks for; empty where it asks for nothing.
pub(super) async fn credentials(
    objects: &Objects<'_>,
    webhook: &OutboundWebhook,
) -> Result<Result<Credentials, Problem>, Error> {
    let mut secrets = BTreeMap::new();
    for SecretKeyRef { name, .. } in webhook.spec.credential_refs() {
        // Once each: a user's name and password come from one version of their Secret.
        if !secrets.contains_key(name) {
            secrets.insert(name.clone(), objects.get::<Secret>(name).await?);
        }
    }
    Ok(Values(secrets).credentials(webhook))
}

/// The Secrets that are named, by name; `None` where there is none.
struct Values(BTreeMap<String, Option<Secret>>);

impl Values {
    fn credentials(&self, webhook: &OutboundWebhook) -> Result<Credentials, Problem> {
        let spec = &webhook.spec;
        let mut found = Credentials::default();
        for (n, header) in spec.endpoint.headers.iter().enumerate() {
            found.headers.push(self.header(&format!("endpoint.headers[{n}]"), header)?);
        }
        if let Some(authorization) = &spec.authorization {
            found.headers.extend(self.authorization(authorization)?);
            if let Some(client) = &authorization.oauth2_client_credentials {
                found.client_credentials = Some(self.client_credentials(client)?);
            }
        }
        let secret_refs = spec.signature.iter().flat_map(|signature| &signature.secret_refs);
        for (n, reference) in secret_refs.enumerate() {
            found
                .signing_secrets
                .push(self.signing_secret(&format!("signature.secretRefs[{n}]"), reference)?);
        }
        found.check().map_err(|error| {
            Problem::new(Reason::InvalidHeader, format!("endpoint.headers and authorization: {error}"))
        })?;
        Ok(found)
    }

    /// Without the line break at its end.
    fn get(&self, field: &str, reference: &SecretKeyRef) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let SecretKeyRef { name, key } = reference;
        let Some(secret) = self.0.get(name).and_then(Option::as_ref) else {
            return Err(secret_not_found(field, name));
        };
        let Some(value) = value(secret.data.as_ref(), key) else {
            return Err(key_not_found(field, "Secret", name, key, secret.data.as_ref()));
        };
        Ok(Zeroizing::new(without_line_break(&value).to_vec()))
    }

    fn header(&self, field: &str, header: &Header) -> Result<(HeaderName, HeaderValue), Problem> {
        let name = name(field, &header.name)?;
        let value = match (&header.value, &header.value_from) {
            (Some(text), None) => credentials::value(text.as_bytes())
                .map_err(|error| Problem::new(Reason::InvalidHeader, format!("{field}.value: {error}")))?,
            (None, Some(source)) => {
                let (field, reference) = (format!("{field}.valueFrom.secretKeyRef"), &source.secret_key_ref);
                let value = self.get(&field, reference)?;
                credentials::value(&value).map_err(invalid(Reason::InvalidHeader, &field, reference))?
            }
            _ => {
                let message = format!("{field}: exactly one of value and valueFrom must be set");
                return Err(Problem::new(Reason::InvalidHeader, message));
            }
        };
        Ok((name, value))
    }

    /// Those that are headers from the beginning.
    fn authorization(
        &self,
        authorization: &Authorization,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
        let mut headers = Vec::new();
        let invalid = |field, reference| invalid(Reason::InvalidAuthorization, field, reference);
        if let Some(basic) = &authorization.basic {
            let username_field = "authorization.basic.usernameSecretRef";
            let password_field = "authorization.basic.passwordSecretRef";
            let username = self.get(username_field, &basic.username_secret_ref)?;
            let password = self.get(password_field, &basic.password_secret_ref)?;
            // Each by itself first: who is told of a field is to look at the right one.
            credentials::basic(&username, b"x")
                .map_err(invalid(username_field, &basic.username_secret_ref))?;
            let value = credentials::basic(&username, &password)
                .map_err(invalid(password_field, &basic.password_secret_ref))?;
            headers.push((AUTHORIZATION, value));
        }
        if let Some(bearer) = &authorization.bearer {
            let (field, reference) = ("authorization.bearer.tokenSecretRef", &bearer.token_secret_ref);
            let value =
                credentials::bearer(&self.get(field, reference)?).map_err(invalid(field, reference))?;
            headers.push((AUTHORIZATION, value));
        }
        if let Some(header) = &authorization.header {
            let (field, reference) = ("authorization.header.valueSecretRef", &header.value_secret_ref);
            let value =
                credentials::value(&self.get(field, reference)?).map_err(invalid(field, reference))?;
            headers.push((name("authorization.header", &header.name)?, value));
        }
        Ok(headers)
    }

    fn client_credentials(&self, client: &v1alpha1::ClientCredentials) -> Result<ClientCredentials, Problem> {
        const FIELD: &str = "authorization.oauth2ClientCredentials";
        let token_url = client.token_url.parse().map_err(|error| {
            let message = format!("{FIELD}.tokenURL cannot be dialled: {error}");
            Problem::new(Reason::InvalidUrl, message)
        })?;
        let text = |field: &str, reference: &SecretKeyRef| {
            let field = format!("{FIELD}.{field}");
            let value = self.get(&field, reference)?;
            client_credential(&value).map_err(|why| {
                Problem::new(Reason::InvalidAuthorization, format!("{}: {why}", of(&field, reference)))
            })
        };
        Ok(ClientCredentials {
            token_url,
            client_id: text("clientIDSecretRef", &client.client_id_secret_ref)?,
            client_secret: text("clientSecretSecretRef", &client.client_secret_secret_ref)?,
            scopes: client.scopes.clone(),
            audience: client.audience.clone(),
            in_body: client.token_endpoint_auth_method == TokenEndpointAuthMethod::ClientSecretPost,
        })
    }

    fn signing_secret(&self, field: &str, reference: &SecretKeyRef) -> Result<SigningSecret, Problem> {
        SigningSecret::parse(&self.get(field, reference)?).map_err(|error| {
            let message = format!(
                "{}: {error}; `echo whsec_$(openssl rand -base64 32)` makes one",
                of(field, reference)
            );
            Problem::new(Reason::InvalidSigningSecret, message)
        })
    }
}

fn name(field: &str, text: &str) -> Result<HeaderName, Problem> {
    credentials::name(text)
        .map_err(|error| Problem::new(Reason::InvalidHeader, format!("{field}.name {text:?}: {error}")))
}

/// RFC 6749, appendix A.1 and A.2: printable ASCII.
fn client_credential(value: &[u8]) -> Result<String, String> {
    if value.is_empty() {
        return Err("it is empty".to_owned());
    }
    if value.len() > limits::CLIENT_CREDENTIAL_BYTES {
        return Err(format!("it has more than {} bytes", limits::CLIENT_CREDENTIAL_BYTES));
    }
    let text = std::str::from_utf8(value).ok();
    let text = text.filter(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    text.map(str::to_owned)
        .ok_or_else(|| "it holds a line break, or another character that is not printable ASCII".to_owned())
}

fn invalid(reason: Reason, field: &str, reference: &SecretKeyRef) -> impl FnOnce(InvalidHeader) -> Problem {
    let place = of(field, reference);
    move |error| Problem::new(reason, format!("{place}: {error}"))
}

fn of(field: &str, SecretKeyRef { name, key }: &SecretKeyRef) -> String {
    format!("{field}: Secret {name:?}, key {key}")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;

    const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";

    fn webhook(spec: Value) -> OutboundWebhook {
        let mut full = json!({ "endpoint": { "url": "https://partner.example" } });
        let Value::Object(spec) = spec else { panic!("no object") };
        full.as_object_mut().unwrap().extend(spec);
        serde_json::from_value(json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook",
            "metadata": { "name": "partner", "namespace": "shop" }, "spec": full,
        }))
        .unwrap()
    }

    fn found(spec: Value, data: &[(&str, &str)]) -> Result<Credentials, Problem> {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString((*value).into()))).collect();
        let secret = Secret { data: Some(data), ..Secret::default() };
        Values([("there".to_owned(), Some(secret)), ("gone".to_owned(), None)].into())
            .credentials(&webhook(spec))
    }

    fn at(key: &str) -> Value {
        json!({ "name": "there", "key": key })
    }

    fn headers(credentials: &Credentials) -> Vec<(&str, &str)> {
        credentials.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
    }

    #[test]
    fn each_kind_becomes_what_is_sent() {
        let data = [("user", "me\n"), ("password", "pass"), ("token", "t0ken\r\n"), ("whole", "Key abc")];
        let of = |kind: Value| found(json!({ "authorization": kind }), &data).unwrap();
        let basic =
            of(json!({ "basic": { "usernameSecretRef": at("user"), "passwordSecretRef": at("password") } }));
        assert_eq!(headers(&basic), [("authorization", "Basic bWU6cGFzcw==")]);
        let bearer = of(json!({ "bearer": { "tokenSecretRef": at("token") } }));
        assert_eq!(headers(&bearer), [("authorization", "Bearer t0ken")]);
        let header = of(json!({ "header": { "name": "X-Key", "valueSecretRef": at("whole") } }));
        assert_eq!(headers(&header), [("x-key", "Key abc")]);
        let client = of(json!({ "oauth2ClientCredentials": {
            "tokenURL": "https://login.example/token", "clientIDSecretRef": at("user"),
            "clientSecretSecretRef": at("password"), "tokenEndpointAuthMethod": "ClientSecretPost",
        } }));
        let client = client.client_credentials.unwrap();
        assert_eq!(
            (client.client_id.as_str(), client.client_secret.as_str(), client.in_body),
            ("me", "pass", true)
        );
        let plain = json!({ "headers": [
            { "name": "X-Tenant", "value": "shop" },
            { "name": "X-Key", "valueFrom": { "secretKeyRef": at("whole") } },
        ], "url": "https://partner.example" });
        let plain = found(json!({ "endpoint": plain }), &data).unwrap();
        assert_eq!(headers(&plain), [("x-tenant", "shop"), ("x-key", "Key abc")]);
    }

    #[test]
    fn what_cannot_be_used_names_its_place_and_never_its_value() {
        let bearer =
            |reference: Value| json!({ "authorization": { "bearer": { "tokenSecretRef": reference } } });
        let basic = |user: &str, password: &str| json!({ "authorization": { "basic": { "usernameSecretRef": at(user), "passwordSecretRef": at(password) } } });
        let header = |key: &str| {
            json!({ "endpoint": { "url": "https://partner.example", "headers": [
            { "name": "X-Key", "valueFrom": { "secretKeyRef": at(key) } },
        ] } })
        };
        let signature = |key: &str| json!({ "signature": { "secretRefs": [at("signing"), at(key)] } });
        let data = [
            ("good", "hunter2"),
            ("lines", "hunter2\nhunter2"),
            ("colon", "hunter2:x"),
            ("empty", "\n"),
            ("bearer", "Bearer hunter2"),
            ("signing", SIGNING),
            ("short", "whsec_aHVudGVyMg=="),
        ];
        for (spec, reason, message) in [
            (
                bearer(json!({ "name": "gone", "key": "k" })),
                "SecretNotFound",
                "authorization.bearer.tokenSecretRef: there is no Secret \"gone\"",
            ),
            (
                bearer(at("missing")),
                "KeyNotFound",
                "authorization.bearer.tokenSecretRef: Secret \"there\" has no key missing; it has bearer, colon,",
            ),
            (
                bearer(at("bearer")),
                "InvalidAuthorization",
                "authorization.bearer.tokenSecretRef: Secret \"there\", key bearer: it holds a space",
            ),
            (bearer(at("empty")), "InvalidAuthorization", "key empty: it is empty"),
            (
                basic("colon", "good"),
                "InvalidAuthorization",
                "authorization.basic.usernameSecretRef: Secret \"there\", key colon: the user's name holds a colon",
            ),
            (
                basic("good", "lines"),
                "InvalidAuthorization",
                "authorization.basic.passwordSecretRef: Secret \"there\", key lines: it holds a line break",
            ),
            (
                header("lines"),
                "InvalidHeader",
                "endpoint.headers[0].valueFrom.secretKeyRef: Secret \"there\", key lines: it holds a line break",
            ),
            (
                signature("short"),
                "InvalidSigningSecret",
                "signature.secretRefs[1]: Secret \"there\", key short: it is no secret of Standard Webhooks",
            ),
        ] {
            let problem = found(spec, &data).unwrap_err();
            assert_eq!(problem.reason, reason, "{problem:?}");
            assert!(problem.message.contains(message), "{}", problem.message);
            assert!(!problem.message.contains("hunter2") && !problem.message.contains("aHVudGVyMg"));
        }
    }

    #[test]
    fn what_went_around_the_definition_is_refused_all_the_same() {
        let reserved = json!({ "endpoint": { "url": "https://partner.example", "headers": [{ "name": "webhook-id", "value": "1" }] } });
        let problem = found(reserved, &[]).unwrap_err();
        assert_eq!((&*problem.reason, problem.message.contains("reserved")), ("InvalidHeader", true));
        let both =
            json!({ "endpoint": { "url": "https://partner.example", "headers": [{ "name": "X-Key" }] } });
        assert_eq!(found(both, &[]).unwrap_err().reason, "InvalidHeader");
    }
}
