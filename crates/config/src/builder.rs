//! Layers in, configuration or every mistake out.

use std::path::{Path, PathBuf};

use infra_types::Secret;

use crate::{
    config::Config,
    de,
    environment::Environment,
    file::{FILE_BYTES_MAX, Origin, parse, read_capped},
    preset::Preset,
    problem::{ConfigError, Problem, Source},
    rules,
    tree::{Entry, Node, Scalar, Table, render},
    url_parts,
};

/// The configuration of a preset with the variables of this process over it.
///
/// # Errors
/// [`ConfigError`] with every mistake; a preset that does not exist is one and never becomes another preset.
pub fn get_config(preset: &str) -> Result<Config, ConfigError> {
    ConfigBuilder::new(preset.parse()?).environment(Environment::process()).build()
}

/// Collects the layers: preset, files, environment, code; each covers the ones before, whatever the order of the calls.
///
/// It reads no environment that it was not given.
#[derive(Debug, Clone)]
#[must_use = "nothing is read before `build`"]
pub struct ConfigBuilder {
    preset: Preset,
    texts: Vec<Text>,
    environment: Environment,
    overrides: Vec<(String, Secret<String>)>,
}

#[derive(Debug, Clone)]
enum Text {
    Path(PathBuf),
    Given { name: String, toml: Secret<String> },
}

impl ConfigBuilder {
    /// Starts from a preset's defaults.
    pub fn new(preset: Preset) -> Self {
        Self { preset, texts: Vec::new(), environment: Environment::empty(), overrides: Vec::new() }
    }

    /// Adds a TOML file, over the files before it. It must exist; 256 KiB at most.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.texts.push(Text::Path(path.as_ref().to_owned()));
        self
    }

    /// Adds a TOML text as if it were a file of this name.
    pub fn toml(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.texts.push(Text::Given { name: name.into(), toml: Secret::new(text.into()) });
        self
    }

    /// Gives the environment; the last one given counts.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Sets one value over everything else: a path such as `risk.max_total_positions` and the value as text.
    pub fn set(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.overrides.push((path.into(), Secret::new(value.into())));
        self
    }

    /// Reads the files, merges the layers, checks types, keys and rules.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake of every layer.
    pub fn build(self) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let mut tree = Table::new(Source::Preset(self.preset));
        for text in self.preset.layers() {
            tree.merge(parse(text, &Origin::Preset(self.preset), &mut problems), &mut problems);
        }
        for mut layer in self.layers(&mut problems) {
            take_preset(&mut layer, self.preset, &mut problems);
            url_parts::expand(&mut layer, &mut problems);
            tree.merge(layer, &mut problems);
        }
        let config = read(&mut tree, &mut problems);
        if let Some(config) = &config {
            check(config, &tree, &mut problems);
        }
        match (ConfigError::collect(problems), config) {
            (None, Some(config)) => Ok(config),
            (Some(error), _) => Err(error),
            (None, None) => Err(Problem::new("", Source::Preset(self.preset), "the preset is incomplete").into()),
        }
    }

    /// The layers above the preset, lowest first.
    fn layers(&self, problems: &mut Vec<Problem>) -> Vec<Table> {
        let mut layers = Vec::new();
        for text in &self.texts {
            match text {
                Text::Given { name, toml } => layers.push(parse(toml.expose(), &Origin::File(name), problems)),
                Text::Path(path) => {
                    let name = path.display().to_string();
                    match read_capped(path, FILE_BYTES_MAX) {
                        Ok(toml) => layers.push(parse(&toml, &Origin::File(&name), problems)),
                        Err(why) => problems.push(Problem::new("", Source::WholeFile { name }, why)),
                    }
                }
            }
        }
        layers.extend(self.environment.layers(problems));
        let mut code = Table::new(Source::Code);
        for (path, value) in &self.overrides {
            let keys: Vec<&str> = path.split('.').collect();
            code.insert(&keys, Entry::new(Scalar::Text(value.clone()), Source::Code), problems);
        }
        layers.push(code);
        layers
    }
}

/// A layer may say which preset it is written for; it cannot choose one.
fn take_preset(layer: &mut Table, preset: Preset, problems: &mut Vec<Problem>) {
    let same = match layer.get(&["preset"]) {
        None => return,
        Some(Node::Value(stack)) => stack.iter().all(|entry| {
            matches!(entry.scalar, Scalar::Str(_) | Scalar::Text(_)) && entry.scalar.raw() == Some(preset.as_str())
        }),
        Some(Node::Table(_)) => false,
    };
    while let Some(taken) = layer.take_top(&["preset"]) {
        if !same {
            let problem = Problem::new("preset", taken.at, format!("this layer is not written for preset `{preset}`"));
            problems.push(problem.hint("the preset is chosen in code; remove the key or start the other preset"));
        }
    }
}

/// Reads the sections. A value that does not fit is reported and taken off, so that reading can go on below it.
fn read(tree: &mut Table, problems: &mut Vec<Problem>) -> Option<Config> {
    loop {
        let mut unknown = Vec::new();
        match de::read::<Config>(tree, &mut unknown) {
            Ok(config) => {
                problems.append(&mut unknown);
                return Some(config);
            }
            Err(error) => {
                // Each round takes a value off, so this ends.
                let Some(taken) = tree.take_top(&error.path) else {
                    problems.push(Problem::new(render(&error.path), Source::Code, error.message));
                    return None;
                };
                // A second guard: our own messages hold no value, a foreign type's might.
                let leaks = taken.raw.is_some_and(|raw| raw.len() > 2 && error.message.contains(&raw));
                let message = if leaks { "this value does not fit".to_owned() } else { error.message };
                let mut problem = Problem::new(render(&error.path), taken.at, message).overrides(taken.below);
                problem.hint = error.hint;
                problems.push(problem);
            }
        }
    }
}

/// Runs the rules; a setting that already has a problem is not blamed twice.
fn check(config: &Config, tree: &Table, problems: &mut Vec<Problem>) {
    for finding in rules::check(config) {
        if problems.iter().any(|problem| problem.path == finding.path) {
            continue;
        }
        let keys: Vec<&str> = finding.path.split('.').collect();
        let (source, overrides) = match tree.get(&keys) {
            Some(Node::Value(stack)) => {
                let mut from_top = stack.iter().rev().map(|entry| entry.at.clone());
                (from_top.next(), from_top.next())
            }
            _ => (None, None),
        };
        let source = source.unwrap_or(Source::Preset(config.preset));
        let mut problem = Problem::new(finding.path, source, finding.message).hint(finding.hint).overrides(overrides);
        problem.rule = Some(finding.rule);
        problems.push(problem);
    }
}
