"""Make profiles.tsv.gz: mean expression of about 3,500 human genes in each class of the simulated co-culture.

A developer's script: the table it writes is shipped, and nothing runs it again. Immune classes are means of real
counts (GSE96583, control arm); the MSC column is constructed. README.md says how and from what.

    python make_profiles.py GSE96583_COUNTS.h5ad GENCODE_GENES.csv.gz profiles.tsv.gz

GSE96583_COUNTS.h5ad: cells x symbols, obs ``condition`` (ctrl, stim), ``cell_type`` and ``multiplets``.
GENCODE_GENES.csv.gz: Ensembl id, symbol, version, length, biotype; no header.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from immunomod.exclusive import LEUKOCYTE, load_exclusive_genes
from immunomod.files import read_tsv, write_tsv
from immunomod.programs import load_programs
from immunomod.tables import REPOSITORY

N_GENES = 3500
SMOOTHING_COUNTS = 10_000.0  # molecules of the lineage's mean profile that are added to each class's sum
CLASSES = {
    "CD4_T": ("CD4 T cells", "lymphoid"),
    "CD8_T": ("CD8 T cells", "lymphoid"),
    "NK": ("NK cells", "lymphoid"),
    "B": ("B cells", "lymphoid"),
    "CD14_monocyte": ("CD14+ Monocytes", "myeloid"),
    "CD16_monocyte": ("FCGR3A+ Monocytes", "myeloid"),
    "DC": ("Dendritic cells", "myeloid"),
}
#: The kind of each class in the table of exclusive genes.
KINDS = {
    "CD4_T": "T_NK", "CD8_T": "T_NK", "NK": "T_NK", "B": "B", "CD14_monocyte": "myeloid", "CD16_monocyte": "myeloid",
    "DC": "myeloid", "MSC": "MSC",
}  # fmt: skip
MITOCHONDRIAL_SHARE = {"lymphoid": 0.04, "myeloid": 0.05, "MSC": 0.05}
MITOCHONDRIAL = {
    "MT-CO1": 18, "MT-CO2": 15, "MT-CO3": 16, "MT-ATP6": 12, "MT-ATP8": 1, "MT-CYB": 9, "MT-ND1": 8, "MT-ND2": 8,
    "MT-ND3": 7, "MT-ND4": 10, "MT-ND4L": 2, "MT-ND5": 3, "MT-ND6": 0.3,
}  # fmt: skip

# The table of counts leaves out genes that the annotation of a PBMC leans on: level = factor x the level of a gene
# that marks the same cells.
BY_ANALOGY = {
    "TRAC": ("CD3D", 1.2), "TRBC1": ("CD3D", 0.8), "TRBC2": ("CD3D", 1.2), "CD1C": ("FCER1A", 0.6),
    "IGKC": ("CD79A", 2.0), "IGHM": ("CD79A", 1.0), "IGHD": ("CD79A", 0.4),
    "CD22": ("CD79A", 0.15), "NCAM1": ("KLRD1", 0.2), "CD1E": ("FCER1A", 0.2), "CLEC9A": ("FCER1A", 0.05),
}  # fmt: skip

RENAMED = {
    "GNB2L1": "RACK1", "H3F3B": "H3-3B", "H3F3A": "H3-3A", "IL8": "CXCL8", "TMEM66": "SARAF", "ATP5E": "ATP5F1E",
    "ATP5L": "ATP5MG", "ATP5G2": "ATP5MC2", "ATP5G3": "ATP5MC3", "ATP5O": "ATP5PO", "ATP5J": "ATP5PF",
    "ATP5B": "ATP5F1B", "ATP5A1": "ATP5F1A", "ATP5D": "ATP5F1D", "ATP5H": "ATP5PD", "GLTSCR2": "NOP53",
    "H2AFZ": "H2AZ1", "H2AFV": "H2AZ2", "SEPT7": "SEPTIN7", "SELK": "SELENOK", "SELT": "SELENOT", "SEP15": "SELENOF",
    "TCEB2": "ELOB", "NHP2L1": "SNU13", "FAM96B": "CIAO2B", "WARS": "WARS1", "FAM26F": "CALHM6", "SQRDL": "SQOR",
    "CCDC109B": "MCUB", "RARRES3": "PLAAT4", "C19orf43": "TRIR", "FAM49B": "CYRIB", "C14orf166": "RTRAF",
}  # fmt: skip

# MSC and stromal genes, counts per million of a cultured human MSC. Levels are round numbers in the order that the
# literature reports (matrix and cytoskeleton highest, receptors and ligands lowest); see README.md.
STROMAL = {
    20000: "VIM TMSB10 S100A6",
    12000: "COL1A1 COL1A2 LGALS1 TAGLN FN1 SPARC ACTB",
    7000: "COL3A1 TPM2 MYL9 IGFBP7 TIMP1 CALD1 TPM1 MYL6 S100A11 ANXA2 CD63 TMSB4X",
    4000: "COL6A1 COL6A2 COL5A1 COL4A1 CCN2 THBS1 ACTA2 BGN LUM SERPINE1 POSTN COL6A3 CAV1 TIMP3 CCN1 LGALS3 MT2A",
    2000: (
        "COL4A2 COL5A2 DCN THY1 NT5E TGFBI IGFBP3 SERPINH1 P4HB PPIB CTSK CD44 FBN1 MGP NNMT KRT18 KRT8 ACTN1 ACTN4 "
        "FLNA MYH9 TPM4 CNN1 CNN2 CNN3 CRYAB PRDX1 ANXA1 ANXA5 S100A10 S100A13 S100A16 CD59 CD9 TUBA1A TUBB6 RCN1 "
        "FSTL1 LOX IGFBP4 IGFBP5 IGFBP6 CCND1 ID3 TNFRSF12A UCHL1 NUPR1"
    ),
    800: (
        "ENG ALCAM MMP2 MMP14 CAV2 CAVIN1 CAVIN3 ITGB1 ITGA5 ITGAV PLOD2 PLOD1 P3H1 LEPRE1 CDH2 CDH11 CDH13 PDGFRB "
        "LRP1 NRP1 TIMP2 CTSB SDC4 EFEMP1 EFEMP2 FBLN1 FBLN5 FBLN2 LAMB1 LAMC1 LAMA4 LTBP1 LTBP2 MFAP2 MFAP4 MFAP5 "
        "ELN VCAN PTX3 CXCL12 GREM1 DKK1 DKK3 SFRP1 STC1 STC2 INHBA VEGFA VEGFC HMGA2 HMGA1 TWIST1 TWIST2 PRRX1 "
        "MEG3 AKR1B1 EMP1 EMP2 CRIM1 CYBRD1 PDLIM7 PDLIM5 PDLIM4 LMO7 LIMA1 PALLD MICAL2 AMOTL2 ANKRD1 CRYBG1 BDNF "
        "AXL DDR2 TGFB1I1 GAS6 GJA1 HAPLN1 THBS2 KRT19 KRT7 PRSS23 SERPINE2 SERPINF1 TFPI TFPI2 CFH C1R C1S CD248 "
        "PDPN LAYN NT5DC2 MEST NEXN MYLK MRAS FHL1 FHL2 FHL3 CSRP1 CSRP2 TGM2 SGCE GNG11 HTRA1 LOXL1 LOXL2 "
        "ADAMTS1 PAPPA CLMP COL8A1 COL12A1 COL11A1 COL16A1 COL7A1 PCOLCE SPON2 OSTC TMEM47 MXRA8 NFIX"
    ),
    250: (
        "MCAM VCAM1 LEPR PDGFRA NGFR KITLG ANGPT1 FGF2 FGF7 HGF IL6 CXCL8 CCL2 ICAM1 TGFB1 LIF LGALS9 HMOX1 CD274 "
        "PTGES PTGES2 PTGES3 PTGS2 SOD2 NFKBIA STAT1 IRF1 TAP1 PSMB8 PSMB9 PSME1 PSME2 SLC7A5 CXCL16 IL32 GATA6 "
        "RUNX2 SOX9 PPARG WNT5A BMP4 BMP2 TBX15 TBX3 MSX1 NES ITGA11 ITGA8 EDNRA SNAI2 CSF1 TNFRSF11B IL1R1 GPC1"
    ),
}

# Genes of leukocytes that are even enough over the immune classes to be taken for housekeeping.
PAN_LEUKOCYTE_SYMBOLS = (
    "PTPRC LAPTM5 CORO1A LCP1 CD37 CD48 CD53 CD52 CD74 CYTIP EVI2A EVI2B RAC2 ARHGDIB ARHGAP30 ARHGAP15 ARHGAP9 LSP1 "
    "PTPN6 PTPN7 FYB FYB1 LCP2 GMFG SELL SELPLG ITGB2 ITGAL ITGAM ITGAX ITGA4 ITGB7 IKZF1 CXCR4 SRGN TYROBP FCER1G "
    "HCLS1 DOCK2 DOCK8 CYBA CYBB NCF1 NCF2 NCF4 SASH3 WAS IL10RA IL2RG CD69 CCR7 CCL5 CST7 CTSS ALOX5AP RGS1 RGS2 "
    "RGS10 HCST CD2 CD7 CD27 CD83 LYZ S100A8 S100A9 S100A12 S100A4 FCN1 NKG7 GNLY PRF1 CD3D CD3E CD3G CD247 LCK TRAC "
    "TRBC1 TRBC2 LTB IL7R IL32 CD79A CD79B MS4A1 BTK BIN2 SP140 SPI1 AIF1 LST1 CD68 FCGR3A FCGR2A CSF1R CSF3R CD14 "
    "CD4 CD8A CD8B PLEK STK4 MYO1F MYO1G TAGAP TRAF3IP3 GPSM3 UCP2 PSTPIP1 VAV1 APBB1IP FERMT3 GIMAP4 GIMAP7 GIMAP5 "
    "GIMAP6 GIMAP1 GIMAP8 ISG20 STK17B RHOH HMHA1 ARHGAP25 ARHGAP4 LIMD2 SIT1 CD96 CD5 CD6 KLRB1 SLA TMC8 PIM2 POU2F2 "
    "RUNX3 PRKCB INPP5D CARD16 CD300A CD84 SAMSN1 SLAMF7 IL16 IL2RB CCL3 CCL4 CD36 MNDA TCF7 LEF1 TNFRSF1B TNFSF10 "
    "IFI30 CD99L2 GZMA GZMB GZMH GZMK GZMM IGKC IGHM IGHD MARCO PPBP PF4 HBB HBA1 HBA2 XCL1 XCL2 FGFBP2 CTSW KLRD1 "
    "KLRF1 DUSP2 CD160 BCL11B CAMK4 SPOCK2 ETS1"
)
PAN_LEUKOCYTE = frozenset(PAN_LEUKOCYTE_SYMBOLS.split())

# Levels that a stimulus (phytohaemagglutinin) gives to the genes that MSC are planted to suppress, and that the
# responses planted in MSC start from: a programme can only be seen to fall where it is expressed (counts per million).
STIMULATED = {"imm_T_prolif_S": 380, "imm_T_prolif_G2M": 380, "imm_Th1": 420, "imm_T_activation": 300}
STIMULATED_T_CLASSES = ("CD4_T", "CD8_T")
STIMULATED_MONOCYTES = {"CD14_monocyte": 1.0, "CD16_monocyte": 0.8, "DC": 0.5}
STIMULATED_MONOCYTE_LEVEL = {"imm_mac_M1": 380}
RESTING_MSC = {
    "msc_ifng_core": 110, "msc_mhc2": 90, "msc_chemokine_T": 90, "msc_kynurenine": 110, "msc_tnf_nfkb": 130,
    "msc_prolif_S": 90, "msc_prolif_G2M": 90, "msc_trophic": 150, "msc_hsc_niche": 120, "msc_identity_isct": 300,
    "msc_senescence_core": 120, "msc_myofibroblast": 300, "msc_complement_regulators": 150, "msc_pge2": 90,
    "msc_checkpoint_contact": 80, "msc_inducible_antiinflam": 80, "conf_hypoxia": 150, "conf_dissociation": 150,
    "msc_type1_ifn": 100,
}  # fmt: skip
RIBOSOMAL = r"RP[LS]\d|RPLP\d|RPSA$"
SPREAD = 0.35  # sd of log2 of a gene's level around the number above


def gencode_ids(path: Path) -> pd.Series:
    """Ensembl id by symbol; where a symbol stands for several, the protein-coding one that comes first."""
    genes = pd.read_csv(path, header=None, names=["gene_id", "symbol", "version", "length", "biotype"])
    genes["rank"] = (genes["biotype"] != "protein_coding").astype(int)
    genes = genes.sort_values("rank", kind="stable").drop_duplicates("symbol")
    return genes.set_index("symbol")["gene_id"]


def class_profiles(path: Path) -> pd.DataFrame:
    """Smoothed counts per million of the immune classes, genes x classes."""
    adata = anndata.read_h5ad(path)
    adata = adata[(adata.obs["condition"] == "ctrl") & (adata.obs["multiplets"] == "singlet")]
    symbols = pd.Index(adata.var_names).map(lambda symbol: RENAMED.get(symbol, symbol))
    sums = pd.DataFrame(
        {
            name: np.asarray(adata[(adata.obs["cell_type"] == label).to_numpy()].X.sum(axis=0)).ravel()
            for name, (label, _) in CLASSES.items()
        },
        index=symbols,
    )
    sums = sums.groupby(level=0).sum()
    profiles = {}
    for name, (_, lineage) in CLASSES.items():
        parent = sums[[other for other, (_, of) in CLASSES.items() if of == lineage]].sum(axis=1)
        smoothed = sums[name] + SMOOTHING_COUNTS * parent / parent.sum()
        profiles[name] = 1e6 * smoothed / smoothed.sum()
    return pd.DataFrame(profiles)


def add_missing(profiles: pd.DataFrame, symbols: set[str]) -> pd.DataFrame:
    """Add the genes that the counts lack: mitochondrial, by analogy, and the rest of ``symbols`` at zero."""
    profiles = profiles.reindex(profiles.index.union(sorted(symbols)), fill_value=0.0)
    for gene, (model, factor) in BY_ANALOGY.items():
        if gene not in profiles.index or profiles.loc[gene].sum() == 0:
            profiles.loc[gene] = profiles.loc[model] * factor
    return profiles.sort_index()


def constructed_msc(immune: pd.DataFrame, weights: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
    """Counts per million of a resting MSC: the even genes of the immune classes, plus stromal and programme genes."""
    immune = immune[["CD4_T", "CD8_T", "NK", "B", "CD14_monocyte", "CD16_monocyte"]]
    even = immune.min(axis=1) / immune.max(axis=1).clip(lower=1e-9) > 0.2
    even |= immune.index.str.match(RIBOSOMAL)
    foreign = immune.index.isin(PAN_LEUKOCYTE) | immune.index.str.startswith(("HLA-D", "IG", "TR"))
    foreign &= ~immune.index.str.startswith(("IGFBP", "TRA2", "TRI", "TRM", "TRAP", "TRAM", "TRAF"))
    background = np.exp(np.log(immune.clip(lower=1e-9)).mean(axis=1)).where(even & ~foreign, 0.0)
    msc = background * np.exp2(rng.normal(0, 0.5, len(background)))
    msc[msc.index.str.match(RIBOSOMAL)] *= 1.5
    msc["MALAT1"] *= 0.35
    msc *= 520_000 / msc.sum()
    for level, genes in STROMAL.items():
        for gene in genes.split():
            if gene in msc.index:
                msc[gene] = max(msc[gene], level * 2 ** rng.normal(0, SPREAD))
    for program, level in RESTING_MSC.items():
        for gene in weights.index[weights[program] != 0]:
            if gene in msc.index and program_level_applies(gene, program):
                msc[gene] = max(msc[gene], level * 2 ** rng.normal(0, SPREAD))
    msc[msc.index.str.startswith("MT-")] = 0.0
    return msc


def program_level_applies(gene: str, program: str) -> bool:
    """Whether a resting MSC holds ``gene`` at the programme's level: not the leukocyte genes that are not planted."""
    planted = program in ("msc_mhc2", "msc_chemokine_T", "msc_ifng_core", "msc_tnf_nfkb", "msc_kynurenine")
    return planted or (gene not in PAN_LEUKOCYTE and not gene.startswith("HLA-D"))


def stimulated(immune: pd.DataFrame, weights: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The immune classes under a stimulus: the programmes that MSC suppress are raised to a level one can measure."""
    raised = immune.copy()
    for program, level in {**STIMULATED, **STIMULATED_MONOCYTE_LEVEL}.items():
        scale = dict.fromkeys(STIMULATED_T_CLASSES, 1.0) if program in STIMULATED else STIMULATED_MONOCYTES
        for gene in weights.index[weights[program] != 0]:
            wanted = level * 2 ** rng.normal(0, SPREAD)
            for name, factor in scale.items():
                raised.loc[gene, name] = max(raised.loc[gene, name], wanted * factor)
    return raised


def with_mitochondria(profiles: pd.DataFrame) -> pd.DataFrame:
    """Rescale every class to a million with its mitochondrial share."""
    genes = pd.Series(MITOCHONDRIAL) / sum(MITOCHONDRIAL.values())
    for name in profiles:
        kind = CLASSES.get(str(name).removesuffix("_stimulated"), ("", "MSC"))[1]
        share = MITOCHONDRIAL_SHARE[kind]
        profiles.loc[genes.index, name] = 0.0
        profiles[name] *= 1e6 * (1 - share) / profiles[name].sum()
        profiles.loc[genes.index, name] = 1e6 * share * genes
    return profiles


def without_foreign(profiles: pd.DataFrame) -> pd.DataFrame:
    """Take out of each class what only other kinds of cell make: the source's ambient RNA, and that of smoothing."""
    groups = load_exclusive_genes().of_groups("human")
    for name in profiles:
        kind = KINDS[str(name).removesuffix("_stimulated")]
        own = groups[kind] | (set() if kind == "MSC" else groups[LEUKOCYTE])
        foreign = set().union(*groups.values()) - own
        profiles.loc[profiles.index.isin(foreign), name] = 0.0
    return profiles


def main(counts: str, gencode: str, out: str) -> None:
    """Write the table."""
    rng = np.random.default_rng(20171211)
    ids = gencode_ids(Path(gencode))
    weights = load_programs().weights("human")
    stromal = {gene for genes in STROMAL.values() for gene in genes.split()}
    markers = read_tsv(REPOSITORY / "resources" / "markers" / "markers.tsv", dtype=str)["gene_human"].dropna()
    needed = {*weights.index, *stromal, *markers, *MITOCHONDRIAL, *BY_ANALOGY} & set(ids.index)
    immune = add_missing(class_profiles(Path(counts)), needed)
    immune = immune[immune.index.isin(ids.index)]
    msc = constructed_msc(immune, weights, rng)
    activated = stimulated(immune, weights, rng).add_suffix("_stimulated")
    profiles = pd.concat([immune, activated, msc.rename("MSC")], axis=1)
    priority = profiles.max(axis=1).where(~profiles.index.isin(sorted(needed)), np.inf)
    kept = priority.sort_values(ascending=False, kind="stable").index[:N_GENES]
    profiles = with_mitochondria(without_foreign(profiles.loc[sorted(kept)]))
    table = profiles.map(lambda level: float(f"{level:.4g}") if level >= 0.05 else 0.0)
    table.insert(0, "gene_id", ids[table.index])
    table.insert(1, "gene_symbol", table.index)
    write_tsv(table.sort_values("gene_id"), out)
    print(f"{len(table)} genes, {len(table.columns) - 2} columns")


if __name__ == "__main__":
    main(*sys.argv[1:])
