//! Failures as Apptainer and Singularity tell them: workflow programs look for these words, and some for nothing else.

use super::exit::Failure;

/// What `apptainer` exits with, whatever went wrong.
pub(super) const EXIT_CODE: u8 = 255;

/// The lines for people and programs. The first has all that was found out.
pub(super) fn lines(failure: &Failure) -> Vec<String> {
    let mut text = format!("FATAL:   {}", refusal_to_replace(&failure.message).as_ref().unwrap_or(&failure.message));
    for cause in &failure.causes {
        text.push_str(&format!(": {cause}"));
    }
    if let Some(words) = familiar_words(failure).filter(|words| !text.contains(words.as_str())) {
        text.push_str(&format!(": {words}"));
    }
    // What chooses an image or an output elsewhere, Apptainer's pull does not have.
    let hint = match failure.hint.contains("--platform OS/ARCH") {
        true => "choose with --arch, for example --arch amd64",
        false => failure.hint.strip_suffix(" with -o").unwrap_or(&failure.hint),
    };
    vec![text, format!("hint: {hint}")]
}

/// What is said of an output that exists, also where it appeared a moment ago.
fn refusal_to_replace(message: &str) -> Option<String> {
    let (_, path) = message.strip_suffix(" exists already")?.rsplit_once("output ")?;
    Some(format!("Image file already exists: {path} - will not overwrite"))
}

/// How Go's clients call it: what nf-core and others tell failures apart by.
fn familiar_words(failure: &Failure) -> Option<String> {
    let text = [&failure.message].into_iter().chain(&failure.causes).cloned().collect::<Vec<_>>().join(": ");
    if let Some((_, rest)) = text.split_once("there is no host \"") {
        let host = rest.split('"').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        return Some(format!("dial tcp: lookup {name}: no such host"));
    }
    match failure.kind {
        "source-unavailable" if text.contains("MANIFEST_UNKNOWN") => Some("manifest unknown".to_string()),
        "source-unavailable" if text.contains(" has no ") => Some("StatusCode: 404".to_string()),
        "network" if text.contains(" denied access to ") => {
            Some("denied: requested access to the resource is denied".to_string())
        }
        _ => None,
    }
}
