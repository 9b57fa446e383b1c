# Variance components of R's lme4 for crossed and unbalanced cultures of MSC donors. Rscript make_variance_reference.R from
# this folder writes variance_cultures.tsv (study, source, donor, dataset, y) and variance_lme4.tsv (study, component,
# variance; restricted maximum likelihood). Donors of one source are in several data sets, with 1 to 3 cultures in each.
suppressMessages(library(lme4))
cultures <- do.call(rbind, lapply(1:6, function(study) {
  set.seed(study)
  donors <- data.frame(donor = sprintf("d%02d", 1:16), source = rep(c("bone", "fat", "cord", "dental"), each = 4))
  table <- merge(donors, data.frame(dataset = c("A", "B", "C", "D", "E")))
  table <- table[runif(nrow(table)) < 0.6, ]
  table <- table[rep(seq_len(nrow(table)), sample(1:3, nrow(table), replace = TRUE)), ]
  draw <- function(labels, sd) rnorm(length(unique(labels)), 0, sd)[match(labels, unique(labels))]
  table$y <- draw(table$source, 0.6) + draw(table$donor, 0.7) + draw(table$dataset, 0.5) + rnorm(nrow(table), 0, 0.4)
  cbind(study, table[, c("source", "donor", "dataset", "y")])
}))
cultures$y <- round(cultures$y, 6)
found <- do.call(rbind, lapply(split(cultures, cultures$study), function(table) {
  control <- lmerControl(check.conv.singular = "ignore")
  fit <- lmer(y ~ 1 + (1 | source) + (1 | donor) + (1 | dataset), table, REML = TRUE, control = control)
  parts <- as.data.frame(VarCorr(fit))
  data.frame(study = table$study[1], component = parts$grp, variance = signif(parts$vcov, 8))
}))
found$component[found$component == "Residual"] <- "culture"
write.table(cultures, "variance_cultures.tsv", sep = "\t", quote = FALSE, row.names = FALSE)
write.table(found, "variance_lme4.tsv", sep = "\t", quote = FALSE, row.names = FALSE)
