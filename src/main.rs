//! Parse, call, report.

use pyats_image_builder::runner;

fn main() {
    if let Some(call) = runner::child() {
        let message = format!("there is no task `{}`", call.task);
        call.answer(Err(message));
    }
}
