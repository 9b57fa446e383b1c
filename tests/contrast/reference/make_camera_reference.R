# Writes what limma's camera says of a small matrix with sets of correlated genes, some of them expected to fall.
# Run in this folder: Rscript make_camera_reference.R (R and limma as in versions.txt)
suppressMessages(library(limma))
set.seed(11)
n_genes <- 240; n_units <- 8
write_table <- function(table, name) write.table(format(table, digits = 15, trim = TRUE), name, sep = "\t", quote = FALSE, row.names = FALSE)

donor <- factor(rep(1:4, 2)); arm <- rep(c(-0.5, 0.5), each = 4); age <- c(31, 58, 44, 27, 31.5, 60, 41, 29)
sd <- sqrt(0.1 / rchisq(n_genes, 5) * 5)
y <- matrix(rnorm(n_genes * n_units), n_genes, n_units) * sd + matrix(rnorm(n_genes * 4), n_genes, 4)[, rep(1:4, 2)]
rownames(y) <- sprintf("g%03d", seq_len(n_genes))
signs <- matrix(0, n_genes, 7, dimnames = list(rownames(y), c("rising", "correlated", "mixed", "opposed", "steady", "two", "one")))
signs[1:20, "rising"] <- 1
signs[21:50, "correlated"] <- 1
signs[51:75, "mixed"] <- rep(c(1, 1, -1, 1, -1), 5)
signs[76:99, "opposed"] <- rep(c(1, -1), 12)      # moves together, so that its halves go against each other
signs[c(5, 25, 60, 100:130), "steady"] <- rep(c(1, -1), 17)
signs[131:132, "two"] <- c(-1, 1)
signs[140, "one"] <- -1
y <- y + outer(signs[, "rising"], arm) * 0.8
for (set in c("correlated", "mixed")) y <- y + 0.7 * sd * outer(signs[, set], rnorm(n_units))
y <- y + 0.7 * sd * outer(abs(signs[, "opposed"]), rnorm(n_units))
y <- y + outer(signs[, "mixed"], arm) * 0.5

write_table(data.frame(gene = rownames(y), y), "camera_expression.tsv")
write_table(data.frame(gene = rownames(y), signs), "camera_sets.tsv")
designs <- list(paired = model.matrix(~ donor + arm), covariate = model.matrix(~ age + arm))
results <- NULL
for (design in names(designs)) for (set in colnames(signs)) {
  turned <- y * ifelse(signs[, set] < 0, -1, 1)   # a gene that is expected to fall is turned over
  index <- which(signs[, set] != 0)
  x <- designs[[design]]
  table <- camera(turned, index, x, contrast = ncol(x), inter.gene.cor = NA)
  results <- rbind(results, data.frame(design = design, set = set, n_genes = table$NGenes, correlation = table$Correlation,
                                       direction = table$Direction, p_value = table$PValue))
}
write_table(results, "camera.tsv")
