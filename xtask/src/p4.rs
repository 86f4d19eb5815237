//! Compiled P4 programs: made from their sources, and checked against them.
//!
//! The compiler is no crate, so its output is in the repository, beside a manifest with the hashes of
//! all sources and of the output. Whoever changes a source must compile again; the check needs no
//! compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use flowradar_p4::config::ProgramConfig;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// The compiler.
const COMPILER: &str = "p4c-bm2-ss";

/// Folders with programs. Every `.p4` file in one, but a generated header, is a program of its own; what
/// it compiles to is in `compiled/` beside it.
const PROGRAM_FOLDERS: [&str; 3] = [
    "p4src/v1model",
    "flowradar-switch/tests/programs",
    "examples/own_program",
];

/// The generated header of the reference program, and the folder where sources look for it that have none
/// beside them.
const CONFIG_FILE: &str = "p4src/generated/flowradar_config.p4";
const CONFIG_NAME: &str = "flowradar_config.p4";

/// The record of what a folder's programs were compiled from.
const MANIFEST: &str = "manifest.toml";

/// What has become of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Path of the source in the repository.
    pub program: String,
    /// Whether it was compiled now, or was up to date.
    pub was_compiled: bool,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let state = if self.was_compiled {
            "compiled"
        } else {
            "up to date"
        };
        write!(f, "{}: {state}", self.program)
    }
}

/// Why programs are not compiled, or not up to date.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum P4Error {
    /// The compiler is not there.
    #[error("{COMPILER} is not on PATH: {0}")]
    Compiler(io::Error),
    /// The compiler refused a program.
    #[error("{program}:\n{output}")]
    Compile {
        /// The program.
        program: String,
        /// What the compiler said.
        output: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An include that is not there.
    #[error("{}: include \"{include}\" not found", path.display())]
    Include {
        /// The file that includes.
        path: PathBuf,
        /// What it includes.
        include: String,
    },
    /// The compiler's output is no JSON.
    #[error("{}: {source}", path.display())]
    Json {
        /// The output.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A manifest is no manifest.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: toml::de::Error,
    },
    /// Compiled forms are not those of the sources.
    #[error("{}\nRun `cargo xtask p4` where {COMPILER} is on PATH and commit what it writes.", .0.join("\n"))]
    Stale(Vec<String>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(default)]
    programs: BTreeMap<String, ProgramRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgramRecord {
    compiler: String,
    /// Hashes by path in the repository.
    sources: BTreeMap<String, String>,
    /// Hashes by name in the folder of the manifest.
    compiled: BTreeMap<String, String>,
}

/// Compiles all programs that have changed since they were compiled, or `all` of them.
///
/// # Errors
/// If the compiler is missing or refuses a program, or files cannot be read or written.
pub fn compile(repository: &Path, all: bool) -> Result<Vec<Outcome>, P4Error> {
    write_if_changed(
        &repository.join(CONFIG_FILE),
        ProgramConfig::reference().to_p4().as_bytes(),
    )?;
    let mut outcomes = Vec::new();
    let mut version = None;
    for folder in PROGRAM_FOLDERS {
        let sources = programs_in(repository, folder)?;
        let compiled = repository.join(folder).join("compiled");
        let mut manifest = read_manifest(&compiled)?;
        manifest
            .programs
            .retain(|name, _| sources.iter().any(|source| stem(source) == name));
        for source in &sources {
            let was_compiled =
                all || !stale_parts(repository, folder, source, &manifest)?.is_empty();
            if was_compiled {
                let version = match &version {
                    Some(version) => version,
                    None => version.insert(compiler_version()?),
                };
                let record = compile_program(repository, &compiled, source, version)?;
                manifest.programs.insert(stem(source).to_owned(), record);
            }
            outcomes.push(Outcome {
                program: source.clone(),
                was_compiled,
            });
        }
        if !sources.is_empty() {
            let text = toml::to_string(&manifest).expect("strings in maps are TOML");
            write_if_changed(&compiled.join(MANIFEST), text.as_bytes())?;
        }
    }
    Ok(outcomes)
}

/// Says whether all compiled forms, and the generated header, are those of the sources.
///
/// # Errors
/// [`P4Error::Stale`] if one is not, or another if files cannot be read.
pub fn check(repository: &Path) -> Result<Vec<Outcome>, P4Error> {
    let mut outcomes = Vec::new();
    let mut stale = Vec::new();
    if read(&repository.join(CONFIG_FILE))? != ProgramConfig::reference().to_p4().as_bytes() {
        stale.push(format!("{CONFIG_FILE}: not what is generated now"));
    }
    for folder in PROGRAM_FOLDERS {
        let manifest = read_manifest(&repository.join(folder).join("compiled"))?;
        let sources = programs_in(repository, folder)?;
        for name in manifest.programs.keys() {
            if !sources.iter().any(|source| stem(source) == name) {
                stale.push(format!("{folder}/compiled: {name} has no source"));
            }
        }
        for source in sources {
            stale.extend(stale_parts(repository, folder, &source, &manifest)?);
            outcomes.push(Outcome {
                program: source,
                was_compiled: false,
            });
        }
    }
    if stale.is_empty() {
        Ok(outcomes)
    } else {
        Err(P4Error::Stale(stale))
    }
}

/// What of a program is not as the manifest says.
fn stale_parts(
    repository: &Path,
    folder: &str,
    source: &str,
    manifest: &Manifest,
) -> Result<Vec<String>, P4Error> {
    let Some(record) = manifest.programs.get(stem(source)) else {
        return Ok(vec![format!("{source}: not compiled")]);
    };
    let mut stale = Vec::new();
    let sources = hashes_of_sources(repository, source)?;
    for path in sources.keys().chain(record.sources.keys()) {
        if sources.get(path) != record.sources.get(path) {
            stale.push(format!(
                "{source}: {path} has changed since it was compiled"
            ));
        }
    }
    for (name, hash) in &record.compiled {
        let path = repository.join(folder).join("compiled").join(name);
        match fs::read(&path) {
            Ok(bytes) if hash_of(&bytes) == *hash => {}
            Ok(_) => stale.push(format!("{}: not what was compiled", path.display())),
            Err(error) => stale.push(format!("{}: {error}", path.display())),
        }
    }
    stale.dedup();
    Ok(stale)
}

fn compile_program(
    repository: &Path,
    compiled: &Path,
    source: &str,
    version: &str,
) -> Result<ProgramRecord, P4Error> {
    fs::create_dir_all(compiled).map_err(|source| file_error(compiled, source))?;
    let names = [
        format!("{}.json", stem(source)),
        format!("{}.p4info.txtpb", stem(source)),
    ];
    let [json, p4info] = names.each_ref().map(|name| compiled.join(name));
    // A relative path, from the repository: it is written into the output.
    let config_folder = config_folder_of(repository, source);
    run_compiler(repository, &config_folder, source, &json, &p4info)?;
    let whole: serde_json::Value =
        serde_json::from_slice(&read(&json)?).map_err(|source| P4Error::Json {
            path: json.clone(),
            source,
        })?;
    write_if_changed(&json, without_sources(whole).as_bytes())?;
    let mut record = ProgramRecord {
        compiler: version.to_owned(),
        sources: hashes_of_sources(repository, source)?,
        compiled: BTreeMap::new(),
    };
    for (name, path) in names.into_iter().zip([json, p4info]) {
        record.compiled.insert(name, hash_of(&read(&path)?));
    }
    Ok(record)
}

/// Compiles one program, with a generated header from `config_folder`, as it comes from the compiler.
///
/// # Errors
/// If the compiler is missing or refuses the program.
pub fn run_compiler(
    repository: &Path,
    config_folder: &Path,
    source: &str,
    json: &Path,
    p4info: &Path,
) -> Result<(), P4Error> {
    // The pass left out would put the expression of a hash wherever its variable is used, to be
    // computed there again.
    let output = Command::new(COMPILER)
        .current_dir(repository)
        .args(["--arch", "v1model", "-I"])
        .arg(config_folder)
        .args(["--excludeMidendPasses", "P4::LocalCopyPropagation"])
        .arg("--p4runtime-files")
        .arg(p4info)
        .arg("-o")
        .arg(json)
        .arg(source)
        .output()
        .map_err(P4Error::Compiler)?;
    if !output.status.success() {
        return Err(P4Error::Compile {
            program: source.to_owned(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(())
}

/// The compiler's JSON without what it says of the sources, which is most of it; one line for each
/// action, table and so on.
fn without_sources(mut program: serde_json::Value) -> String {
    remove_source_info(&mut program);
    let mut text = String::from("{");
    let parts = program.as_object().into_iter().flatten();
    for (position, (name, part)) in parts.enumerate() {
        text.push_str(if position == 0 { "\n" } else { ",\n" });
        text.push_str(&format!("\"{name}\": "));
        match part.as_array() {
            Some(elements) if !elements.is_empty() => {
                let lines: Vec<_> = elements.iter().map(ToString::to_string).collect();
                text.push_str(&format!("[\n{}\n]", lines.join(",\n")));
            }
            _ => text.push_str(&part.to_string()),
        }
    }
    text.push_str("\n}\n");
    text
}

fn remove_source_info(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(elements) => elements.iter_mut().for_each(remove_source_info),
        serde_json::Value::Object(members) => {
            members.remove("source_info");
            members.values_mut().for_each(remove_source_info);
        }
        _ => {}
    }
}

fn compiler_version() -> Result<String, P4Error> {
    let output = Command::new(COMPILER)
        .arg("--version")
        .output()
        .map_err(P4Error::Compiler)?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Version "))
        .unwrap_or("of unknown version");
    Ok(format!("{COMPILER} {version}"))
}

/// Hashes of a source and of all that it includes from this repository, by path in the repository.
fn hashes_of_sources(repository: &Path, source: &str) -> Result<BTreeMap<String, String>, P4Error> {
    let config_folder = config_folder_of(repository, source);
    let mut hashes = BTreeMap::new();
    let mut open = BTreeSet::from([PathBuf::from(source)]);
    while let Some(path) = open.pop_first() {
        let bytes = read(&repository.join(&path))?;
        let text = String::from_utf8_lossy(&bytes);
        for include in text.lines().filter_map(included) {
            let found = [
                path.parent().unwrap_or_else(|| Path::new("")),
                &config_folder,
            ]
            .iter()
            .map(|folder| without_dots(&folder.join(include)))
            .find(|candidate| repository.join(candidate).is_file())
            .ok_or_else(|| P4Error::Include {
                path: path.clone(),
                include: include.to_owned(),
            })?;
            if !hashes.contains_key(&found.display().to_string()) {
                open.insert(found);
            }
        }
        hashes.insert(path.display().to_string(), hash_of(&bytes));
    }
    Ok(hashes)
}

/// Where a program's generated header is, as a path in the repository: beside the program, or the reference
/// program's.
fn config_folder_of(repository: &Path, source: &str) -> PathBuf {
    let beside = Path::new(source).with_file_name(CONFIG_NAME);
    let config = if repository.join(&beside).is_file() {
        beside
    } else {
        PathBuf::from(CONFIG_FILE)
    };
    config.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The file that a line includes from this repository.
fn included(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("#include")?.trim_start();
    rest.strip_prefix('"')?.split('"').next()
}

/// A path without `..`, which must not lead out of the repository.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path {
        if part == ".." {
            plain.pop();
        } else if part != "." {
            plain.push(part);
        }
    }
    plain
}

/// The programs in a folder, as paths in the repository, in order. A folder that is not there has none.
fn programs_in(repository: &Path, folder: &str) -> Result<Vec<String>, P4Error> {
    let path = repository.join(folder);
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let mut programs = Vec::new();
    for entry in fs::read_dir(&path).map_err(|source| file_error(&path, source))? {
        let name = entry
            .map_err(|source| file_error(&path, source))?
            .file_name();
        let is_program = |name: &&str| name.ends_with(".p4") && *name != CONFIG_NAME;
        if let Some(name) = name.to_str().filter(is_program) {
            programs.push(format!("{folder}/{name}"));
        }
    }
    programs.sort();
    Ok(programs)
}

/// The name of a program: that of its file.
fn stem(source: &str) -> &str {
    let name = source.rsplit('/').next().unwrap_or(source);
    name.strip_suffix(".p4").unwrap_or(name)
}

fn read_manifest(compiled: &Path) -> Result<Manifest, P4Error> {
    let path = compiled.join(MANIFEST);
    if !path.exists() {
        return Ok(Manifest::default());
    }
    let bytes = read(&path)?;
    toml::from_str(&String::from_utf8_lossy(&bytes))
        .map_err(|source| P4Error::Manifest { path, source })
}

fn hash_of(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

fn read(path: &Path) -> Result<Vec<u8>, P4Error> {
    fs::read(path).map_err(|source| file_error(path, source))
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), P4Error> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| file_error(folder, source))?;
    }
    fs::write(path, bytes).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> P4Error {
    P4Error::File {
        path: path.to_owned(),
        source,
    }
}
