# Writes the small R files that tests/sample/test_rds.py reads: Rscript make_rds.R FOLDER
# Every one holds the same 12 genes x 7 cells: count (g, c) is ((5 g + 3 c) mod 7) where g + c is even, else 0.
# Needs Matrix, SeuratObject 4 and SingleCellExperiment. Objects of Seurat 2 and 5, which cannot be installed beside it,
# are made from their class definitions.
suppressPackageStartupMessages({
  library(Matrix)
  library(SeuratObject)
  library(SingleCellExperiment)
})
folder <- commandArgs(trailingOnly = TRUE)[1]
file_in <- function(name) file.path(folder, name)

symbols <- c("ACTB", "GAPDH", "CD3D", "MT-CO1", "B2M", "LYZ", "COL1A1", "IDO1", "CD74", "NKG7", "RPL3", "HBB")
ids <- sprintf("ENSG%011d", 1:12)
cells <- sprintf("%s-1", c("AAACCTGAGAAACC", "AAACCTGAGAAACG", "AAACCTGAGAAACT", "AAACCTGAGAAAGA", "AAACCTGAGAAAGC",
                           "AAACCTGAGAAAGG", "AAACCTGAGAAAGT"))
plain <- outer(0:11, 0:6, function(g, c) ifelse((g + c) %% 2 == 0, (5 * g + 3 * c) %% 7, 0))
dimnames(plain) <- list(symbols, cells)
counts <- as(as(plain, "CsparseMatrix"), "generalMatrix")
logged <- counts
logged@x <- log1p(counts@x / rep(Matrix::colSums(counts), diff(counts@p)) * 1e4)

# matrices
saveRDS(counts, file_in("dgCMatrix.rds"))
saveRDS(counts, file_in("plain_file.rds"), compress = FALSE)
saveRDS(counts, file_in("bzip2.rds"), compress = "bzip2")
saveRDS(counts, file_in("xz.rds"), compress = "xz")
saveRDS(counts, file_in("version2.rds"), version = 2)
saveRDS(counts, file_in("text.rds"), ascii = TRUE)
con <- file(file_in("native.rds"), "wb")
serialize(counts, con, xdr = FALSE)
close(con)
saveRDS(as(counts, "TsparseMatrix"), file_in("dgTMatrix.rds"))
saveRDS(as(counts, "RsparseMatrix"), file_in("dgRMatrix.rds"))
saveRDS(as(counts, "unpackedMatrix"), file_in("dgeMatrix.rds"))
saveRDS(plain, file_in("double.rds"))
whole <- plain
storage.mode(whole) <- "integer"
saveRDS(whole, file_in("integer.rds"))
saveRDS(as.data.frame(whole, optional = TRUE), file_in("data_frame.rds"))
with_column <- data.frame(gene = symbols, whole, check.names = FALSE, row.names = NULL)
saveRDS(with_column, file_in("data_frame_column.rds"))
saveRDS(t(counts), file_in("transposed.rds"))
nameless <- counts
dimnames(nameless) <- list(symbols, NULL)
saveRDS(nameless, file_in("no_cells.rds"))
dimnames(nameless) <- NULL
saveRDS(nameless, file_in("no_names.rds"))
saveRDS(logged, file_in("logged.rds"))
fractions <- counts
fractions@x <- pmax(counts@x - 0.04, 0)
saveRDS(fractions, file_in("fractions.rds"))
missing <- whole
missing[2, 3] <- NA
saveRDS(missing, file_in("missing.rds"))

# files of several objects
note <- "made for a test"
save(counts, note, file = file_in("one_matrix.RData"))
save(counts, note, file = file_in("text.RData"), ascii = TRUE)
save(counts, logged, note, file = file_in("two_matrices.RData"))
saveRDS(list(a = counts, b = logged), file_in("list_of_two.rds"))
saveRDS(list(a = counts, b = "text"), file_in("list_of_one.rds"))

# Seurat 3 and 4
seurat <- suppressWarnings(CreateSeuratObject(counts))
seurat[["ADT"]] <- CreateAssayObject(counts[1:3, ])
seurat@assays$RNA@data <- logged
saveRDS(seurat, file_in("seurat4.rds"))
data_only <- suppressWarnings(CreateSeuratObject(CreateAssayObject(data = logged)))
saveRDS(data_only, file_in("seurat4_data_only.rds"))
other <- suppressWarnings(CreateSeuratObject(counts, assay = "SCT"))
other[["ADT"]] <- CreateAssayObject(counts[1:3, ])
saveRDS(other, file_in("seurat4_no_rna.rds"))

# Seurat 2 and 5, and a matrix on disk, from their class definitions
where <- new.env()
setClass("seurat", representation(raw.data = "ANY", data = "ANY", cell.names = "vector"), where = where,
         package = "Seurat")
saveRDS(new("seurat", raw.data = counts, data = logged, cell.names = cells), file_in("seurat2.rds"))
setClass("LogMap", contains = "matrix", where = where, package = "SeuratObject")
setClass("Assay5", representation(layers = "list", cells = "LogMap", features = "LogMap", default = "integer",
                                  key = "character"), where = where, package = "SeuratObject")
log_map <- function(names, layers) {
  map <- sapply(layers, function(own) names %in% own)
  dimnames(map) <- list(names, names(layers))
  new("LogMap", map)
}
bare <- function(matrix) {
  dimnames(matrix) <- list(NULL, NULL)
  matrix
}
assay5 <- function(layers, cells_of, features_of) {
  new("Assay5", layers = lapply(layers, bare), cells = log_map(cells, cells_of),
      features = log_map(symbols, features_of), default = 1L, key = "rna_")
}
# the class of Seurat objects is that of SeuratObject 4: its slot `assays` is a list in both
seurat5 <- function(assay) {
  object <- seurat
  object@assays <- list(RNA = assay)
  object
}
saveRDS(seurat5(assay5(list(counts = counts, data = logged), list(counts = cells, data = cells),
                       list(counts = symbols, data = symbols))), file_in("seurat5.rds"))
first <- c(1, 3, 5)
second <- c(2, 4, 6, 7)
saveRDS(seurat5(assay5(list(counts.1 = counts[, first], counts.2 = counts[-c(5, 9), second]),
                       list(counts.1 = cells[first], counts.2 = cells[second]),
                       list(counts.1 = symbols, counts.2 = symbols[-c(5, 9)]))), file_in("seurat5_split.rds"))
setClass("RenameDims", representation(matrix = "character"), where = where)
on_disk <- new("RenameDims", matrix = "/data/counts")
attr(on_disk, "class") <- structure("RenameDims", package = "BPCells")
saveRDS(seurat5(new("Assay5", layers = list(counts = on_disk), cells = log_map(cells, list(counts = cells)),
                    features = log_map(symbols, list(counts = symbols)), default = 1L, key = "rna_")),
        file_in("seurat5_on_disk.rds"))

# Bioconductor
sce <- SingleCellExperiment(list(counts = counts, logcounts = logged))
saveRDS(sce, file_in("sce.rds"))
rowData(sce) <- DataFrame(ID = ids, Symbol = symbols, Type = "Gene Expression")
rownames(sce) <- ids
saveRDS(sce, file_in("sce_ids.rds"))
unnamed <- SingleCellExperiment(list(counts = bare(counts)), rowData = DataFrame(ID = ids, Symbol = symbols),
                                colData = DataFrame(Barcode = cells))
saveRDS(unnamed, file_in("sce_barcode_column.rds"))
saveRDS(SingleCellExperiment(list(logcounts = logged)), file_in("sce_logged.rds"))
saveRDS(SummarizedExperiment(list(whole)), file_in("summarized_experiment.rds"))
saveRDS(SummarizedExperiment(list(counts = DelayedArray::DelayedArray(plain))), file_in("delayed.rds"))

# what is no matrix of counts
saveRDS(function(x) x + 1, file_in("function.rds"))
saveRDS(new.env(), file_in("environment.rds"))
saveRDS(1:10, file_in("sequence.rds"))
saveRDS(lm(dist ~ speed, cars), file_in("model.rds"))
saveRDS(letters, file_in("letters.rds"))
saveRDS(as.raw(1:10), file_in("raw.rds"))
