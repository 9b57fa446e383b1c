# Writes what edgeR and limma say of a small table of counts; the tests compare our own code with it.
# Run in this folder: Rscript make_reference.R
suppressMessages({library(edgeR); library(limma)})
set.seed(7)
n_genes <- 300; n_units <- 6
mu <- exp(rnorm(n_genes, 2, 1.8))
depth <- c(1, 0.4, 2.5, 1.3, 0.8, 1.7)
counts <- sapply(seq_len(n_units), function(i) {
  rate <- mu
  if (i > 3) rate[1:40] <- rate[1:40] * 12      # a strong composition effect in one arm
  rnbinom(n_genes, mu = rate * depth[i], size = 8)
})
dimnames(counts) <- list(sprintf("g%03d", seq_len(n_genes)), sprintf("u%d", seq_len(n_units)))
group <- factor(rep(c("reference", "test"), each = 3))
write_table <- function(table, name) write.table(format(table, digits = 15, trim = TRUE), name, sep = "\t", quote = FALSE, row.names = FALSE)

write.table(data.frame(gene = rownames(counts), counts), "counts.tsv", sep = "\t", quote = FALSE, row.names = FALSE)
y <- calcNormFactors(DGEList(counts, group = group))
write_table(data.frame(unit = colnames(counts), tmm = y$samples$norm.factors), "edger_factors.tsv")
write_table(data.frame(gene = rownames(counts), kept = filterByExpr(DGEList(counts, group = group)),
                       cpm(y, log = TRUE, prior.count = 2)), "edger_log_cpm.tsv")

score <- matrix(rnorm(25 * 8), 25, 8) * sqrt(1 / rchisq(25, 4))
score[, 5:8] <- score[, 5:8] + rep(c(2, 0), c(5, 20))
donor <- factor(rep(1:4, 2)); arm <- rep(c(0, 1), each = 4)
fit <- lmFit(score, model.matrix(~ donor + arm))
eb <- eBayes(fit)
write_table(data.frame(score), "scores.tsv")
write_table(data.frame(estimate = eb$coefficients[, "arm"], sigma2 = eb$sigma^2, s2_post = eb$s2.post, t = eb$t[, "arm"],
                       p_value = eb$p.value[, "arm"], df_total = eb$df.total, df_prior = eb$df.prior,
                       s2_prior = eb$s2.prior), "limma.tsv")
trended <- eBayes(fit, trend = TRUE)                     # the trend along the mean score
write_table(data.frame(abundance = fit$Amean, s2_post = trended$s2.post, df_total = trended$df.total),
            "limma_trend_scores.tsv")
tight <- fitFDist(c(1.0, 1.1, 0.9, 1.05), df1 = 10)   # less spread than chance: infinite prior df
write_table(data.frame(scale = tight$scale, df2 = tight$df2), "limma_tight.tsv")

# limma-trend on the log2 counts per million: all genes, and so few that the trend is a line, or a constant
trended_genes <- function(rows, name) {
  fit <- eBayes(lmFit(cpm(y, log = TRUE, prior.count = 2)[rows, , drop = FALSE],
                      model.matrix(~ factor(c(1, 2, 3, 1, 2, 3)) + group)), trend = TRUE)
  write_table(data.frame(gene = rownames(fit$coefficients), estimate = fit$coefficients[, "grouptest"],
                         s2_prior = fit$s2.prior, s2_post = fit$s2.post, t = fit$t[, "grouptest"],
                         p_value = fit$p.value[, "grouptest"], df_total = fit$df.total, df_prior = fit$df.prior), name)
}
trended_genes(seq_len(n_genes), "limma_trend.tsv")
trended_genes(1:12, "limma_trend_12_genes.tsv")
trended_genes(1:4, "limma_trend_4_genes.tsv")
writeLines(c(R.version.string, paste("edgeR", packageVersion("edgeR")), paste("limma", packageVersion("limma"))), "versions.txt")
