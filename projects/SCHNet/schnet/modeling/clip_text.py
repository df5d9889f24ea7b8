"""Text features of part names: CLIP's text tower over phrases in templates, ensembled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from clip import tokenize
from clip.model import CLIP

from schnet.errors import InputError

TEXT_BATCH = 64


@torch.no_grad()
def encode_prompts(
    clip_model: CLIP, prompts: Sequence[Sequence[str]], templates: Sequence[str]
) -> torch.Tensor:
    """Text features of the parts, as in CLIP's own zero-shot recipe.

    Each phrase is put into each template; the unit-length embeddings of a part's sentences are
    averaged and scaled to unit length again.

    Args:
        clip_model: a model of the `clip` package, in fp32, in eval mode.
        prompts: for each of the K parts one or more phrases.
        templates: sentences with `{}` for the phrase.

    Returns:
        f_txt, shape (K, E), fp32, unit length.

    Raises:
        InputError: a part has no phrase, or a sentence is too long for CLIP.
    """
    features = []
    for number, phrases in enumerate(prompts):
        if not phrases:
            raise InputError(f"class {number} has no prompt: give it at least one phrase")
        sentences = [template.format(phrase) for phrase in phrases for template in templates]
        embeddings = F.normalize(_encode_sentences(clip_model, sentences), dim=-1)
        features.append(F.normalize(embeddings.mean(dim=0), dim=-1))
    return torch.stack(features)


def _encode_sentences(clip_model: CLIP, sentences: Sequence[str]) -> torch.Tensor:
    try:
        tokens = tokenize(list(sentences), context_length=clip_model.context_length)
    except RuntimeError as error:
        raise InputError(f"a prompt cannot be used: {error}; give a shorter phrase") from None
    # The text tower is causal and read at the end token: what follows it changes nothing.
    tokens = tokens[:, : int(tokens.argmax(dim=1).max()) + 1]
    return torch.cat([clip_model.encode_text(part) for part in tokens.split(TEXT_BATCH)]).float()
