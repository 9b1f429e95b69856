use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::model::Quoted;

/// The transport that is recorded, whatever the image came through: the same image gives the same bytes.
pub(super) const BOOTSTRAP: &str = "docker";

/// The definition text, in the form Apptainer gives to `build docker://REFERENCE`.
pub(super) fn text(reference: &str) -> Result<String> {
    if reference.chars().any(char::is_control) {
        let message = format!("the reference {} holds control characters", Quoted(reference.as_bytes()));
        return Err(Error::new(ErrorKind::Usage, message).with_remedy(Remedy::Reference));
    }
    Ok(format!("bootstrap: {BOOTSTRAP}\nfrom: {reference}\n\n"))
}
