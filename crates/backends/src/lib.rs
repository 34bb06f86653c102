//! Opening, migrating and classifying the errors of the databases that the ports speak to
