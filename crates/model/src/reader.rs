//! Reads the texts of a document and gathers what is wrong with them.

use crate::fault::Fault;
use crate::template::{Expression, Pill, Template, TemplateError};

/// What is wrong with a pill at a path of the document: which names there are depends on the document.
pub(crate) type CheckPill<'a> = dyn Fn(&str, &Pill) -> Option<Fault> + 'a;

/// Reads the texts of a document and gathers what is wrong with them.
pub(crate) struct Reader<'a> {
    faults: Vec<Fault>,
    check_pill: &'a CheckPill<'a>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(check_pill: &'a CheckPill<'a>) -> Self {
        Self { faults: Vec::new(), check_pill }
    }

    /// Everything that was wrong.
    pub(crate) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    pub(crate) fn fault(&mut self, path: &str, reason: impl std::fmt::Display) {
        self.faults.push(Fault::new(path, reason));
    }

    /// Reads an expression whose pills are not those of the document's other texts.
    pub(crate) fn unchecked_expression(&mut self, path: &str, text: &str) -> Option<Expression> {
        self.read(path, Expression::parse(text))
    }

    pub(crate) fn expression(&mut self, path: &str, text: &str) -> Option<Expression> {
        let expression = self.unchecked_expression(path, text)?;
        for pill in expression.pills() {
            self.faults.extend((self.check_pill)(path, pill));
        }
        Some(expression)
    }

    pub(crate) fn template(&mut self, path: &str, text: &str) -> Option<Template> {
        let template = self.read(path, Template::parse(text))?;
        for pill in template.pills() {
            self.faults.extend((self.check_pill)(path, pill));
        }
        Some(template)
    }

    fn read<T>(&mut self, path: &str, read: Result<T, TemplateError>) -> Option<T> {
        read.map_err(|error| self.fault(path, error)).ok()
    }
}
