# What R's DESeq2, edgeR and limma say of the genes of one stratum, each used as its manual shows, over genes that pass
# filterByExpr. Rscript gene_engines.R COUNTS UNITS OUT: COUNTS is genes x units; UNITS has the columns block, arm (test,
# reference) and library. Twice: with the library sizes given, so that models are compared and nothing else, and with each
# package's own. OUT: method, libraries (given, own), gene, log2_fold_change, p_value, fdr.
arguments <- commandArgs(trailingOnly = TRUE)
counts <- as.matrix(read.delim(arguments[1], row.names = 1, check.names = FALSE))
units <- read.delim(arguments[2], colClasses = "character")
units$arm <- factor(units$arm, levels = c("reference", "test"))
units$block <- factor(units$block)
units$library <- as.numeric(units$library)
design <- model.matrix(~ block + arm, units)
suppressMessages({library(edgeR); library(DESeq2)})
y <- DGEList(counts, group = units$arm)
y <- y[filterByExpr(y), , keep.lib.sizes = FALSE]
row_of <- function(method, libraries, gene, change, p_value, fdr)
  data.frame(method, libraries, gene, log2_fold_change = change, p_value, fdr)

engines <- function(libraries) {
  if (libraries == "given") y$samples$lib.size <- units$library else y <- calcNormFactors(y)
  quasi <- topTags(glmQLFTest(glmQLFit(estimateDisp(y, design), design)), n = Inf, sort.by = "none")$table
  trend <- topTable(eBayes(lmFit(cpm(y, log = TRUE, prior.count = 3), design), trend = TRUE), coef = "armtest",
                    number = Inf, sort.by = "none")
  data <- DESeqDataSetFromMatrix(counts[rownames(y), ], units, ~ block + arm)
  if (libraries == "given") sizeFactors(data) <- units$library / exp(mean(log(units$library)))
  wald <- results(DESeq(data, quiet = TRUE), name = "arm_test_vs_reference", alpha = 0.05)
  rbind(row_of("edger", libraries, rownames(quasi), quasi$logFC, quasi$PValue, quasi$FDR),
        row_of("limma", libraries, rownames(trend), trend$logFC, trend$P.Value, trend$adj.P.Val),
        row_of("deseq2", libraries, rownames(wald), wald$log2FoldChange, wald$pvalue, wald$padj))
}
found <- rbind(engines("given"), engines("own"))
found[, 4:6] <- signif(found[, 4:6], 6)
write.table(found, arguments[3], sep = "\t", quote = FALSE, row.names = FALSE, na = "")
