//! The resource's types, one module a version.

pub mod reference;
pub mod v1alpha1;
