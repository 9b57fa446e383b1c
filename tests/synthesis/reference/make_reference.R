# Writes what metafor says of small meta-analyses; the tests compare our own code with it.
# Run in this folder: Rscript make_reference.R
suppressMessages(library(metafor))
set.seed(3)
rows <- list()
for (study in 1:6) {
  k <- c(3, 3, 4, 5, 6, 4)[study]
  v <- runif(k, 0.02, 0.2)
  y <- rnorm(k, 1, sqrt(v + c(0, 0.3, 0.1, 0.5, 0, 1)[study]))
  fit <- rma(y, v, method = "PM", test = "knha", control = list(tol = 1e-10))
  prediction <- predict(fit)
  rows[[study]] <- data.frame(study, y, v, effect = as.numeric(fit$b), se = fit$se, p_value = fit$pval, ci_low = fit$ci.lb,
                              ci_high = fit$ci.ub, tau2 = fit$tau2, i2 = fit$I2,
                              prediction_low = prediction$pi.lb, prediction_high = prediction$pi.ub)
}
write.table(format(do.call(rbind, rows), digits = 15, trim = TRUE), "metafor.tsv", sep = "\t", quote = FALSE, row.names = FALSE)
writeLines(c(R.version.string, paste("metafor", packageVersion("metafor"))), "versions.txt")
