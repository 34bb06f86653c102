//! What the checks know about the workspace: members and what their manifests ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, TargetKind};

/// The workspace, read from `cargo metadata`.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The folder of the root manifest, absolute.
    pub root: PathBuf,
    /// The oldest compiler that the members accept, as `1.94`.
    pub rust_version: String,
    /// Every member, by name.
    pub members: Vec<Member>,
}

/// One package of the workspace.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// Package name.
    pub name: String,
    /// Its folder, relative to the root of the workspace.
    pub dir: PathBuf,
    /// Whether it may go to a registry.
    pub published: bool,
    /// Feature name to what it turns on.
    pub features: BTreeMap<String, Vec<String>>,
    /// As declared, optional ones included.
    pub dependencies: Vec<Dependency>,
    /// Integration tests and example programs.
    pub targets: Vec<Target>,
}

/// An integration test or an example program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As cargo knows it.
    pub name: String,
    /// An integration test, or else an example.
    pub is_test: bool,
    /// Its main file, absolute.
    pub source: PathBuf,
    /// The features without which cargo leaves it out.
    pub required_features: Vec<String>,
}

/// One declared dependency.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// The name of the package, not what it is renamed to.
    pub name: String,
    /// The table that it is declared in.
    pub kind: Kind,
    /// Whether it is a package of this workspace.
    pub in_workspace: bool,
    /// Features asked for by name.
    pub features: Vec<String>,
}

/// The table of the manifest that declares a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[dependencies]`
    Normal,
    /// `[build-dependencies]`
    Build,
    /// `[dev-dependencies]`
    Dev,
}

impl Workspace {
    /// Asks `cargo metadata` about the workspace that holds the current folder.
    ///
    /// # Errors
    /// What cargo said, if it cannot read the manifests.
    pub fn load() -> Result<Self, String> {
        // The manifests alone: no lock file, no network, and it works while a crate does not compile.
        let metadata = MetadataCommand::new().no_deps().exec().map_err(|error| format!("cargo metadata: {error}"))?;
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let rust_version = metadata.packages.iter().filter_map(|package| package.rust_version.as_ref()).max();
        let rust_version = rust_version.map_or_else(String::new, |version| version.to_string());
        let mut members: Vec<Member> =
            metadata.packages.iter().map(|package| Member::from_package(package, &root)).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { root, rust_version, members })
    }

    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The names of all members that have the feature.
    pub fn with_feature(&self, feature: &str) -> Vec<&str> {
        let having = self.members.iter().filter(|member| member.features.contains_key(feature));
        having.map(|member| member.name.as_str()).collect()
    }

    /// The names of all packages from outside that any member declares, in any table.
    pub fn external_dependencies(&self) -> BTreeSet<&str> {
        let all = self.members.iter().flat_map(|member| &member.dependencies);
        all.filter(|dependency| !dependency.in_workspace).map(|dependency| dependency.name.as_str()).collect()
    }
}

impl Member {
    /// A published member without dependencies, in the folder where its name says it lives.
    pub fn new(name: &str) -> Self {
        let dir = Path::new("crates").join(name.strip_prefix("infra-").unwrap_or(name));
        Self { name: name.to_owned(), dir, published: true, ..Self::default() }
    }

    fn from_package(package: &cargo_metadata::Package, root: &Path) -> Self {
        let dir = package.manifest_path.parent().map_or_else(PathBuf::new, |dir| dir.as_std_path().to_owned());
        let dependencies = package.dependencies.iter().map(|dependency| Dependency {
            name: dependency.name.clone(),
            kind: match dependency.kind {
                DependencyKind::Development => Kind::Dev,
                DependencyKind::Build => Kind::Build,
                _ => Kind::Normal,
            },
            in_workspace: dependency.path.is_some(),
            features: dependency.features.clone(),
        });
        let targets = package.targets.iter().filter_map(|target| {
            let is = |kind: &TargetKind| target.kind.contains(kind);
            (is(&TargetKind::Test) || is(&TargetKind::Example)).then(|| Target {
                name: target.name.clone(),
                is_test: is(&TargetKind::Test),
                source: target.src_path.clone().into_std_path_buf(),
                required_features: target.required_features.clone(),
            })
        });
        Self {
            name: package.name.to_string(),
            dir: dir.strip_prefix(root).map_or_else(|_| dir.clone(), Path::to_owned),
            published: package.publish.as_ref().is_none_or(|registries| !registries.is_empty()),
            features: package.features.clone().into_iter().collect(),
            dependencies: dependencies.collect(),
            targets: targets.collect(),
        }
    }
}

impl Dependency {
    /// A dependency on another member of the workspace.
    pub fn member(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind, in_workspace: true, features: Vec::new() }
    }

    /// A dependency on a package from outside.
    pub fn external(name: &str, kind: Kind) -> Self {
        Self { in_workspace: false, ..Self::member(name, kind) }
    }

    /// The same, asking for these features.
    #[must_use]
    pub fn with_features(mut self, features: &[&str]) -> Self {
        self.features = features.iter().map(|&feature| feature.to_owned()).collect();
        self
    }
}
