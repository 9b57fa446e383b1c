# Writes what DropletUtils and edgeR say of a small unfiltered library; the tests compare our own code with it.
# Run in this folder: Rscript make_reference.R
suppressMessages({library(DropletUtils); library(Matrix)})
set.seed(11)
n_genes <- 150; n_empty <- 1200; n_large <- 110; n_small <- 70
ambient <- rgamma(n_genes, 0.5); ambient <- ambient / sum(ambient)
small <- rgamma(n_genes, 0.5); small <- small / sum(small)
droplet <- function(total, profile, alpha) {     # Dirichlet-multinomial of about `total` counts
  share <- rgamma(n_genes, alpha * profile + 1e-6)
  rpois(n_genes, total * share / sum(share))
}
total <- c(pmin(rlnorm(n_empty, log(25), 1), 450), rgamma(n_large, 8, 8 / 1500), rgamma(n_small, 20, 20 / 220))
counts <- sapply(seq_along(total), function(i) {
  if (i <= n_empty) droplet(total[i], ambient, 300)
  else if (i <= n_empty + n_large) droplet(total[i], 0.7 * ambient + 0.3 * small, 300)
  else droplet(total[i], small, 300)
})
counts <- counts[, sample(ncol(counts))]
counts <- as(counts[, colSums(counts) > 0], "dgCMatrix")
dimnames(counts) <- list(sprintf("g%03d", seq_len(n_genes)), sprintf("d%04d", seq_len(ncol(counts))))
write_table <- function(table, name) write.table(format(table, digits = 15, trim = TRUE), gzfile(name), sep = "\t", quote = FALSE, row.names = FALSE)
triplet <- as(counts, "TsparseMatrix")
write_table(data.frame(droplet = triplet@j, gene = triplet@i, count = triplet@x), "droplets.tsv.gz")

# Both of DropletUtils' settings of alpha: estimated (its default to 1.26), infinite (its default since).
result <- list(estimated = emptyDrops(counts, niters = 20000), infinite = emptyDrops(counts, niters = 20000, alpha = Inf))
ranks <- barcodeRanks(counts)
table <- data.frame(total = ranks$total, rank = ranks$rank)
for (name in names(result)) {
  table[paste0("log_prob_", name)] <- result[[name]]$LogProb
  table[paste0("p_value_", name)] <- result[[name]]$PValue
  table[paste0("fdr_", name)] <- result[[name]]$FDR
}
write_table(table, "droplet_utils.tsv.gz")
write_table(data.frame(gene = rownames(counts), share = ambientProfileEmpty(counts)), "ambient_shares.tsv.gz")

# The knee of DropletUtils from 1.27 on is the point furthest above the line from plateau to inflection; here it is
# searched for by measuring each point's distance, on the curve of the version installed.
curve <- unique(as.data.frame(ranks)[order(ranks$rank), c("rank", "total")]); curve <- curve[curve$total > 100, ]
bounds <- DropletUtils:::.find_curve_bounds(log10(curve$rank), log10(curve$total), exclude.from = 50)
points <- cbind(log10(curve$rank), log10(curve$total))[bounds[["left"]]:bounds[["right"]], ]
a <- points[1, ]; b <- points[nrow(points), ]
distance <- apply(points, 1, function(p) ((b - a)[1] * (p - a)[2] - (b - a)[2] * (p - a)[1]) / sqrt(sum((b - a)^2)))
write_table(data.frame(
  name = c("inflection", "knee_line", "knee_spline", "alpha"),
  value = c(metadata(ranks)$inflection, round(10^points[which.max(distance), 2]), metadata(ranks)$knee,
            metadata(result$estimated)$alpha)), "values.tsv.gz")

vectors <- list(rnbinom(400, mu = 3, size = 0.3), rnbinom(400, mu = 200, size = 0.5), c(0, 0, 2, 2, 3, 5, 8, 8, 20),
                c(1, 1, 1, 2, 4), c(0, 1, 1, 1, 1, 2, 2, 3, 7, 9, 40), c(5, 9, 13))
write_table(do.call(rbind, lapply(seq_along(vectors), function(i) data.frame(
  vector = i, count = vectors[[i]], share = DropletUtils:::.safe_good_turing(as.integer(vectors[[i]]))))), "good_turing.tsv.gz")
writeLines(c(R.version.string, paste("DropletUtils", packageVersion("DropletUtils")), paste("edgeR", packageVersion("edgeR"))), "versions.txt")
