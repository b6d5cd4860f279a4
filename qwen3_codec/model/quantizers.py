"""Residual quantization without a state, in the form that exports to few operations: codes to vectors, and back."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import NUM_SEMANTIC_QUANTIZERS, CodecDecoder
from .encoder import CodecEncoder


class Dequantizer(nn.Module):
    """All codebooks as one table, looked up once: [B, N, Q] -> [B, codebook_dim, N].

    The division by the counts is done here, once. Each group's vectors add up; the two sums side by side go through
    the two projections as one matrix. (Projecting the tables themselves would double their size.)
    """

    table: Tensor
    offsets: Tensor
    projection: Tensor

    def __init__(self, decoder: CodecDecoder):
        super().__init__()
        first, rest = decoder.quantizer.rvq_first, decoder.quantizer.rvq_rest
        tables = [*first.tables(), *rest.tables()]
        offsets = torch.arange(len(tables)) * decoder.config.codebook_size
        projection = torch.cat([first.output_proj.weight, rest.output_proj.weight], dim=1)[..., 0]
        self.register_buffer("table", torch.cat(tables), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("projection", projection, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        vectors = F.embedding(codes + self.offsets, self.table)
        first, rest = vectors[:, :, :NUM_SEMANTIC_QUANTIZERS], vectors[:, :, NUM_SEMANTIC_QUANTIZERS:]
        sums = torch.cat([first.sum(dim=2), rest.sum(dim=2)], dim=-1)
        return F.linear(sums, self.projection).transpose(1, 2)


class NearestVector(nn.Module):
    """One codebook: |x - e|^2 is smallest where e . x - |e|^2 / 2 is largest, so one matrix product finds the entry."""

    table: Tensor
    half_norms: Tensor

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("half_norms", table.square().sum(dim=1, keepdim=True) / 2, persistent=False)

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """[B, codebook_dim, N] -> the codes [B, N], and what they leave over, [B, codebook_dim, N]."""
        codes = (torch.matmul(self.table, residual) - self.half_norms).argmax(dim=1)
        return codes, residual - F.embedding(codes, self.table).transpose(1, 2)


class Quantizer(nn.Module):
    """Residual quantisation in two groups of codebooks, each behind a projection of its own (RVQ: arXiv:2107.03312)."""

    def __init__(self, encoder: CodecEncoder):
        super().__init__()
        self.projections = nn.ModuleList(part.input_proj or nn.Identity() for part, _ in encoder.groups())
        self.groups = nn.ModuleList(nn.ModuleList(map(NearestVector, tables)) for _, tables in encoder.groups())

    def forward(self, latents: Tensor) -> Tensor:
        """[B, hidden_size, N] -> int64 [B, N, Q]."""
        codes = []
        groups: Any = self.groups
        for projection, codebooks in zip(self.projections, groups, strict=True):
            residual = projection(latents)
            for codebook in codebooks:
                chosen, residual = codebook(residual)
                codes.append(chosen)
        return torch.stack(codes, dim=-1)
