// Gives a training the id by which the WebUI's own progress bar finds it.

/** Runs before the Train and Resume buttons' handlers; its answer becomes their inputs. */
function ti_train_start(...inputs) {
    const id = randomId();
    const place = gradioApp().getElementById("ti_train_progress");
    requestProgress(id, place, null, () => {}, () => {});
    return [id, ...inputs.slice(1)];
}
