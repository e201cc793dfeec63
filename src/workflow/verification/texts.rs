//! Built-in texts of a verification.

use std::borrow::Cow;

use crate::inference_results::Input;
use crate::tasks::Task;

/// Ordinary sentences in many languages; adjacent sentences form pairs.
const TEXTS: &str = include_str!("../../conversion/texts.txt");

/// The labels that zero_shot_classification chooses from.
pub(super) const LABELS: [&str; 3] = ["technology", "travel", "food"];

/// The texts for a task: with a mask for fill_mask, and with the next text for tasks that read pairs.
pub(super) fn built_in(task: Task, mask: &str) -> Vec<Input<'static>> {
    let texts: Vec<&str> = TEXTS.lines().collect();
    let next = texts.iter().cycle().skip(1);
    texts
        .iter()
        .zip(next)
        .map(|(text, next)| match task {
            Task::QuestionAnswering | Task::TextSimilarity => {
                Input { first: Some(Cow::Borrowed(*text)), text: Cow::Borrowed(*next) }
            }
            Task::FillMask => Input { first: None, text: Cow::Owned(masked(text, mask)) },
            _ => Input { first: None, text: Cow::Borrowed(*text) },
        })
        .collect()
}

/// The text with the mask instead of its middle word. A text of fewer than three words gets the mask at its end.
fn masked(text: &str, mask: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    let middle = words.len() / 2;
    match words.get_mut(middle) {
        Some(word) if middle > 0 => *word = mask,
        _ => words.push(mask),
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_has_64_texts() {
        for task in Task::ALL {
            let texts = built_in(task, "<mask>");
            assert_eq!(texts.len(), 64);
            let pairs = matches!(task, Task::QuestionAnswering | Task::TextSimilarity);
            assert!(texts.iter().all(|it| it.first.is_some() == pairs));
            let masks = usize::from(task == Task::FillMask);
            assert!(texts.iter().all(|it| it.text.matches("<mask>").count() == masks));
        }
        assert_eq!(masked("one two three", "[MASK]"), "one [MASK] three");
        assert_eq!(masked("一二三", "[MASK]"), "一二三 [MASK]");
    }
}
