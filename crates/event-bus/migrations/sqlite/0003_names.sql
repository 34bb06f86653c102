-- The runs that took consumers' names last.
CREATE TABLE bus_consumer (
    group_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    PRIMARY KEY (group_id, name)
) WITHOUT ROWID;
