//! The resource's types, one module a version.

pub mod v1alpha1;
