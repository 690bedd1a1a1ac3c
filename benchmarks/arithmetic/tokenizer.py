"""A tokenizer of 19 ids, one per character or task token; the ids are those of the code of 2605.26097."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

VOCABULARY = ("<pad>", "<add>", "<reversal>", "<sort>", "<modadd>", "|", "=", "_", "<eos>", *"0123456789")


def build() -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer and its special tokens. It has no start token (the task tokens start a document) and no unknown.

    Text is cut into `<...>` and single characters. A character outside the vocabulary makes `tokenizers` raise, so that
    a wrong document is noticed.
    """
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(VOCABULARY)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"<[a-z]+>|."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer, {"eos_token": "<eos>", "pad_token": "<pad>"}
