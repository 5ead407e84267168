//! What is wrong with each object by itself.

use super::Report;
use super::mesh::Mesh;
use crate::diagnostic::Reason;
use crate::validate;

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for object in mesh.objects {
        for found in validate::validate(object) {
            let code = match (found.is_error(), found.reason) {
                (true, _) => "IST0106",
                (false, Reason::Unreachable) => "IST0130",
                (false, Reason::Ineffective) => "IST0131",
                (false, _) => "IST0133",
            };
            let text = match found.path.as_str() {
                "" => found.message,
                path => format!("{path}: {}", found.message),
            };
            report.add(code, object, &found.path, text);
        }
    }
}
